"""Progress bars."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fapo.cli.app import console


def progress_bars(disable: bool = False) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, TextColumn("{task.fields[note]}"), console=console, disable=disable)


def bar_by_name(bars: Progress) -> Callable[[str, int, int], None]:
    """A bar for each thing that is done."""
    ids: dict[str, Any] = {}

    def progress(what: str, done: int, total: int) -> None:
        if what not in ids:
            ids[what] = bars.add_task(what, total=total, note="")
        bars.update(ids[what], completed=done)

    return progress
