"""Run the sides of a comparison in turn on the same work, measure their cost, and summarise the ratios."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parents[2]
"""Folder of the repository, in which `python -m benchmarks.NAME` is started."""
PARTS = ("rollout", "score", "update")
"""Parts of a training step; the metrics of a run have the seconds of each as `time/NAME`."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Cost:
    """Cost of one turn of one side."""

    seconds: float
    """Wall time in seconds."""
    cpu: float
    """Processor time of the process in seconds."""
    peak: float
    """Peak memory of the process so far, in MiB; it says something only where each side has its own process."""


def cost_of(work: Callable[[], Any]) -> tuple[Cost, Any]:
    """Do the work and return its cost and its result."""
    start, cpu = time.perf_counter(), time.process_time()
    result = work()
    return Cost(time.perf_counter() - start, time.process_time() - cpu, peak_memory()), result


def peak_memory() -> float:
    """Return the peak memory of this process in MiB, without that of its parent, which rusage includes."""
    return _memory("VmHWM")


def memory() -> float:
    """Return the memory of this process in MiB; on systems without /proc, its peak."""
    return _memory("VmRSS")


def _memory(name: str) -> float:
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith(name))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def in_turn(sides: Mapping[str, Callable[[int], Result]], num_rounds: int) -> dict[str, list[Result]]:
    """Call every side with the number of each round, in the opposite order in odd rounds, and return the results."""
    results: dict[str, list[Result]] = {name: [] for name in sides}
    for number in range(num_rounds):
        for name in list(sides)[:: -1 if number % 2 else 1]:
            results[name].append(sides[name](number))
    return results


def run_module(module: str, *arguments: object) -> Mapping[str, Any]:
    """Run a module, such as "benchmarks.judging", in a new process and return the JSON object it prints last.

    Raises:
        RuntimeError: The process failed; the message has the end of its output.
    """
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr[-2000:]}")
    found: Mapping[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def print_result(cost: Cost, **more: Any) -> None:
    """Print the cost and other results for the process that called `run_module`."""
    print(json.dumps(asdict(cost) | more))


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return the median, minimum and maximum as text, such as "1.20 (1.10 to 1.30)"."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def ratios(numerators: Iterable[float], denominators: Iterable[float]) -> list[float]:
    """Return the ratio of each round."""
    return [first / second for first, second in zip(numerators, denominators, strict=True)]


def machine(*packages: str) -> str:
    """Return the versions of packages and the number of cores, for the last line of a benchmark."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    named = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"Python {platform.python_version()}, {named}, {cores} cores, load {os.getloadavg()[0]:.1f}"
