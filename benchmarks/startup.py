"""Measure how long the command line takes to print its help, beside the import of its parser, tyro.

python -m benchmarks.startup [--repeats 15]

Times are user and system time of a process. The commands take turns, and the median of each is compared.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from statistics import median

from benchmarks.measuring.turns import machine

PROCESSES = {
    "import tyro": ["-c", "import tyro"],
    "fapo --help": ["-m", "fapo.cli", "--help"],
    "fapo judge --help": ["-m", "fapo.cli", "judge", "--help"],
}


def cpu_seconds(arguments: list[str]) -> float:
    """Return the processor time of a Python process, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15, help="processes of each kind")
    repeats = parser.parse_args().repeats
    print(machine("tyro"))
    turns = [[cpu_seconds(arguments) for arguments in PROCESSES.values()] for _ in range(repeats)]
    found = dict(zip(PROCESSES, map(median, zip(*turns, strict=True)), strict=True))
    for name, seconds in found.items():
        print(f"{name:<20} {seconds:.3f} s  {seconds / found['import tyro']:.2f} x import tyro")


if __name__ == "__main__":
    main()
