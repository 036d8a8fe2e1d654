"""`fapo demo`: the whole method in the miniature."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fapo.cli.app import app, console, table_console
from fapo.cli.progress import progress_bars

if TYPE_CHECKING:
    from fapo.training.parallel_runs import Job


@app.command("demo")
def demo(*, output: Path = Path("demo"), seed: int = 0) -> None:
    """Run all of FAPO in the miniature: train a judge, then a policy with it and one without, and report.

    This takes about five minutes on two cores. The same command continues a demo that was interrupted.

    Args:
        output: Folder for the runs and the page.
        seed: Seed of all runs.
    """
    from fapo.config.reader import load
    from fapo.training.parallel_runs import demo_jobs

    for name in ("torch", "trl"):  # the training runs are processes of their own, which would fail one by one
        if not find_spec(name):
            raise ModuleNotFoundError(name=name)
    jobs = demo_jobs(output, seed)
    load(jobs[0].config, jobs[0].overrides)  # for the same reason: a seed out of range is an error here
    run_and_report(jobs, output)


def run_and_report(jobs: Sequence[Job], output: Path) -> None:
    """Run jobs, then print a summary of their runs and write a page.

    Args:
        jobs: Training runs.
        output: Folder of the run folders and the page.
    """
    # before the runs, so that a missing package is found at once
    from fapo.report import print_summary, write_report

    run_with_bars(jobs, output)
    folders = [job.folder(output) for job in jobs]
    print_summary(folders, table_console())
    console.line(f"page: {write_report(folders, output / 'report.html')}")


def run_with_bars(jobs: Sequence[Job], output: Path, num_workers: int = 2) -> None:
    """Run jobs with a progress bar for each.

    Args:
        jobs: Training runs.
        output: Folder of the run folders.
        num_workers: Number of jobs that run at the same time, each on one processor core.
    """
    from fapo.training.parallel_runs import run_jobs

    with progress_bars() as bars:
        ids = {job.name: bars.add_task(job.name, total=None, note="waiting") for job in jobs}

        def watch(states: dict[str, str]) -> None:
            for job in jobs:
                done, total = job.steps(output)
                bars.update(ids[job.name], completed=done, total=total or None, note=states[job.name])

        run_jobs(jobs, output, watch, num_workers)
