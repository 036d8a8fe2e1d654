"""Write sums of two small numbers in words, which a model of 135 M parameters solves sometimes.

    python -m experiments.real_model.sums sums.jsonl

The file has all sums of numbers from 2 to 12 once, in an order that depends on the seed alone.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

from fapo.data.jsonl import write_jsonl

NUMBERS = range(2, 13)


def sums(seed: int = 0) -> list[dict[str, str]]:
    """Return one row with question and answer for each pair of numbers, shuffled with the seed."""
    rows = [{"question": f"What is {a} plus {b}?", "answer": str(a + b)} for a in NUMBERS for b in NUMBERS]
    random.Random(seed).shuffle(rows)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the file that the command line names."""
    parser = argparse.ArgumentParser(description="Write sums of two small numbers, in words.")
    parser.add_argument("out", type=Path, help="file to write (.jsonl)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the order")
    given = parser.parse_args(arguments)
    write_jsonl(given.out, sums(given.seed))


if __name__ == "__main__":
    main()
