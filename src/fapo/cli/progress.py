"""Progress bars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fapo.cli.app import console

if TYPE_CHECKING:
    from rich.progress import Progress

    from fapo.types import Progress as ProgressCallback


def progress_bars(disable: bool = False) -> Progress:
    """Return an empty set of progress bars on standard error; tasks need the field `note`, a text behind the bar."""
    from rich import progress  # here, because it makes `fapo --help` slower

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
    )
    return progress.Progress(*columns, progress.TextColumn("{task.fields[note]}"), console=console, disable=disable)


def bar_by_name(bars: Progress) -> ProgressCallback:
    """Return a callback that shows a bar for each task, with its metrics behind it."""
    ids: dict[str, Any] = {}

    def progress(task: str, done: int, total: int, metrics: Mapping[str, float] = {}, /) -> None:
        if task not in ids:
            ids[task] = bars.add_task(task, total=total, note="")
        bars.update(ids[task], completed=done, note="  ".join(f"{name} {value:g}" for name, value in metrics.items()))

    return progress
