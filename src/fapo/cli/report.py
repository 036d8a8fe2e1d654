"""`fapo report`: a page about runs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, UseAppendAction, arg

from fapo.cli.app import app, console
from fapo.config.options import Human, Options
from fapo.errors import ConfigError

RELOAD = 30
"""Seconds after which a browser loads a watched page again."""
POLL = 15.0
"""Seconds between two looks at the run folders; a page of many rollouts takes seconds to write."""


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """Runs, and the page about them."""

    runs: Positional[tuple[Path, ...]]
    """Run folders."""
    output: Annotated[Path, arg(aliases=["-o"])] = Path("report.html")
    """File of the page."""
    rollouts: int = 100_000
    """Maximum number of rollouts on the page; if there are more, groups are chosen at random. 0 for none."""
    human: Human = None
    evaluations: Annotated[UseAppendAction[tuple[Path, ...]], arg(name="eval")] = ()
    """Summary of `fapo eval` (the .json beside its --out) for plots of pass@k; may be repeated."""
    watch: bool = False
    """Write the page again when a run has new numbers, until all runs have ended; a browser reloads it every 30 s,
    unless you work on it."""


@app.command("report")
def report(*, settings: Options[ReportSettings]) -> None:
    """Write a self-contained HTML page about runs: curves, settings, a rollout browser, review by hand."""
    from fapo.data.files import check_not_overwriting
    from fapo.report import write_report

    if not settings.runs and not settings.evaluations:
        raise ConfigError("no run folder given: fapo report RUN [RUN ...] -o page.html")
    of_runs = [file for run in settings.runs for file in run.glob("*.json*")]
    check_not_overwriting(
        settings.output, [*settings.evaluations, *([settings.human] if settings.human else []), *of_runs]
    )

    def write(refresh: int | None) -> Path:
        return write_report(
            settings.runs,
            settings.output,
            num_rollouts=settings.rollouts,
            human=settings.human,
            evaluations=settings.evaluations,
            refresh=refresh,
        )

    shown = _stamps(settings.runs)  # before the page is written: numbers that come meanwhile are new to it
    page = write(RELOAD if settings.watch else None)
    console.line(f"page: {page} ({page.stat().st_size / 1e6:.1f} MB)")
    if settings.human:
        _print_rates(settings.human, settings.runs)
    if settings.watch:
        with contextlib.suppress(KeyboardInterrupt):
            _watch(settings.runs, shown, write)


def _print_rates(labels: Path, runs: Sequence[Path]) -> None:
    """Print how good the judges of runs are by labels made by hand."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from fapo.report.human_review import judge_rates
    from fapo.training.run_reader import read_run

    rates = judge_rates(labels, [read_run(path) for path in runs])
    if not rates:
        return
    table = Table("run", "steps", "labelled", "recall", "false positive rate", "J", "F1", box=box.MARKDOWN)
    for row in rates:
        table.add_row(*row.row())
    Console(width=160).print(table)


def _watch(runs: Sequence[Path], seen: Sequence[int], write: Callable[[int | None], Path]) -> None:
    """Write the page again whenever a run has new numbers; the last time, when all runs have ended, without reload."""
    from fapo.training.run_reader import is_finished

    while not all(map(is_finished, runs)):
        time.sleep(POLL)
        if (now := _stamps(runs)) != seen:
            seen = now
            write(RELOAD)
    write(None)


def _stamps(runs: Sequence[Path]) -> list[int]:
    """Return the time of the last change of the numbers of each run; 0 before the first."""
    files = [run / "metrics.jsonl" for run in runs]
    return [file.stat().st_mtime_ns if file.exists() else 0 for file in files]
