"""Measure `fapo demo`: when each run begins and ends, where its time goes, and which runs are the critical path.

python -m benchmarks.demo [--seed 0] [--output FOLDER]

The runs of the demo are started again, in --output or in a temporary folder. This benchmark compares nothing;
training.py and verdicts.py compare the parts of the demo.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.measuring.turns import PARTS, machine
from fapo.data.jsonl import read_jsonl
from fapo.training.parallel_runs import Job, demo_jobs, run_jobs


def watched(jobs: Sequence[Job], output: Path) -> dict[str, tuple[float, float]]:
    """Run all jobs and return when each began and ended, in seconds from the start."""
    start = time.perf_counter()
    began: dict[str, float] = {}
    ended: dict[str, float] = {}

    def look(states: Mapping[str, str]) -> None:
        for name, state in states.items():
            if state != "waiting":
                began.setdefault(name, time.perf_counter() - start)
            if state == "done":
                ended.setdefault(name, time.perf_counter() - start)

    run_jobs(jobs, output, look)
    return {job.name: (began[job.name], ended[job.name]) for job in jobs}


def critical_path(jobs: Sequence[Job], spans: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return the run that ended last, after the runs that had to end before it could begin."""
    after = {job.name: job.after for job in jobs}
    path = [max(spans, key=lambda name: spans[name][1])]
    while before := after[path[0]]:
        path.insert(0, before)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="folder for the runs, which must not hold any yet")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        output = given.output or Path(folder)
        jobs = demo_jobs(output, given.seed)
        if any(job.folder(output).exists() for job in jobs):
            parser.error(f"--output {output}: has runs already; give another folder")
        spans = watched(jobs, output)
        table = Table("run", "began s", "ended s", *(f"{part} s" for part in PARTS), "all else s", box=box.MARKDOWN)
        for job in jobs:
            rows = [row for row in read_jsonl(job.folder(output) / "metrics.jsonl") if row["kind"] == "train"]
            parts = [sum(row[f"time/{part}"] for row in rows) for part in PARTS]
            began, ended = spans[job.name]
            values = [began, ended, *parts, ended - began - sum(parts)]
            table.add_row(job.name, *(f"{value:.0f}" for value in values))
    Console(width=120).print(table)
    path = critical_path(jobs, spans)
    print(f"{max(end for _, end in spans.values()):.0f} s in all; critical path: {', then '.join(path)}")
    print(machine("fapo", "trl", "transformers", "torch"))


if __name__ == "__main__":
    main()
