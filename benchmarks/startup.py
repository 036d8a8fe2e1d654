"""Measure how long the command line takes to print its help, beside the import of its parser, tyro.

python -m benchmarks.startup [--repeats 9]

Times are user and system time of a process, the least of several. tyro imports typeguard for commands with options of
several values, such as `fapo judge`; the second line includes it.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys

from benchmarks.measuring.turns import machine

PROCESSES = {
    "import tyro": ["-c", "import tyro"],
    "import tyro, typeguard": ["-c", "import tyro, typeguard"],
    "fapo --help": ["-m", "fapo.cli", "--help"],
    "fapo judge --help": ["-m", "fapo.cli", "judge", "--help"],
}


def cpu_seconds(arguments: list[str], repeats: int) -> float:
    """Return the least processor time of a Python process, in seconds."""
    times = []
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9, help="processes of each kind")
    repeats = parser.parse_args().repeats
    print(machine("tyro"))
    found = {name: cpu_seconds(arguments, repeats) for name, arguments in PROCESSES.items()}
    for name, seconds in found.items():
        print(f"{name:<24} {seconds:.3f} s  {seconds / found['import tyro']:.2f} x import tyro")


if __name__ == "__main__":
    main()
