"""Progress bars on a terminal, and lines of text where there is none."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fapo.cli.app import console

if TYPE_CHECKING:
    from rich.progress import Progress

    from fapo.types import Progress as ProgressCallback

LINE_SECONDS = 30.0
"""Seconds between two lines of text about one task."""


class Lines:
    """Progress as lines of text on standard error, for log files; with the methods of `rich.progress.Progress`.

    A task has a line at most every `LINE_SECONDS`, and one at its end if it had another before.
    """

    def __init__(self, disable: bool = False) -> None:
        """Start without tasks; print nothing if `disable`."""
        self.disable = disable
        self._tasks: list[dict[str, Any]] = []

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        for task in self._tasks:
            if task["shown"] not in (None, self._line(task)):
                self._print(task)

    def add_task(self, description: str, total: float | None = None, note: str = "") -> Any:
        """Add a task and return its number."""
        now = time.monotonic()
        task = {"name": description, "completed": 0, "total": total, "note": note}
        self._tasks.append(task | {"begun": now, "printed": now, "shown": None})
        return len(self._tasks) - 1

    def update(self, number: int, **changed: Any) -> None:
        """Change completed, total or note of a task, and print it if its last line is long ago."""
        task = self._tasks[number]
        task.update(changed)
        if time.monotonic() - task["printed"] >= LINE_SECONDS:
            self._print(task)

    def _line(self, task: Mapping[str, Any]) -> str:
        total = "" if task["total"] is None else f"/{task['total']:g}"
        return f"{task['name']}: {task['completed']:g}{total} {task['note']}".rstrip()

    def _print(self, task: dict[str, Any]) -> None:
        task["printed"], task["shown"] = time.monotonic(), self._line(task)
        if not self.disable:
            elapsed = task["printed"] - task["begun"]
            console.line(f"{task['shown']} ({elapsed:.0f} s)")


def progress_bars(disable: bool = False) -> Progress | Lines:
    """Return an empty set of progress bars on standard error; tasks need the field `note`, a text behind the bar."""
    if not console.is_terminal:
        return Lines(disable)
    from rich import progress  # here, because it makes `fapo --help` slower

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
    )
    return progress.Progress(
        *columns, progress.TextColumn("{task.fields[note]}"), console=console.rich, disable=disable
    )


def bar_by_name(bars: Progress | Lines) -> ProgressCallback:
    """Return a callback that shows a bar for each task, with its metrics behind it."""
    ids: dict[str, Any] = {}

    def progress(task: str, done: int, total: int, metrics: Mapping[str, float] = {}, /) -> None:
        if task not in ids:
            ids[task] = bars.add_task(task, total=total, note="")
        note = "  ".join(f"{name} {value:g}" for name, value in metrics.items())
        bars.update(ids[task], completed=done, total=total, note=note)

    return progress
