"""Progress bars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fapo.cli.app import console
from fapo.types import Progress as ProgressCallback


def progress_bars(disable: bool = False) -> Progress:
    """Return an empty set of progress bars on standard error; tasks need the field `note`, a text behind the bar."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, TextColumn("{task.fields[note]}"), console=console, disable=disable)


def bar_by_name(bars: Progress) -> ProgressCallback:
    """Return a callback that shows a bar for each task, with its metrics behind it."""
    ids: dict[str, Any] = {}

    def progress(task: str, done: int, total: int, metrics: Mapping[str, float] = {}, /) -> None:
        if task not in ids:
            ids[task] = bars.add_task(task, total=total, note="")
        bars.update(ids[task], completed=done, note="  ".join(f"{name} {value:g}" for name, value in metrics.items()))

    return progress
