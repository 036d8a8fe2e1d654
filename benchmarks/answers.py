"""Answer checks per second: fapo.answers.check_many against math_verify called in this process, on the same inputs.

python benchmarks/answers.py [--rounds 5]

Inputs: for each reference, four rollouts (right, right but written differently, wrong, without a box), as in a group of
GRPO. References are those of MATH-500 when ../shared/data/math500.jsonl exists, else generated ones of the same kinds.
Both sides get warm processes and cold results: every round uses references of its own.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import random
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from math_verify import parse
from math_verify import verify as same

from fapo.answers import check_many, shutdown

DATA = Path(__file__).parents[1] / "../shared/data/math500.jsonl"


def references(rng: random.Random) -> list[str]:
    """Reference answers in the proportions of MATH-500: three in five are plain integers."""
    if DATA.exists():
        found = [json.loads(line)["answer"] for line in DATA.read_text(encoding="utf-8").splitlines()]
        rng.shuffle(found)
        return found
    kinds = ("{a}",) * 6 + (r"\frac{{{a}}}{{{b}}}", r"{a}\sqrt{{{b}}}", r"\left( {a}, {b} \right)", "{a}x^2 - {b}x")
    return [rng.choice(kinds).format(a=rng.randint(2, 999), b=rng.randint(2, 99)) for _ in range(500)]


def rollouts(reference: str, other: str) -> list[tuple[str, str]]:
    """Four solutions of one problem, each with the reference."""
    lead = "We simplify step by step, which leaves one possibility.\n\n"
    ends = (
        f"The answer is $\\boxed{{{reference}}}$.",
        f"The answer is $\\boxed{{{reference} + 0}}$.",
        f"The answer is $\\boxed{{{other}}}$.",
        "The answer is out of reach.",
    )
    return [(lead + end, reference) for end in ends]


def direct(pairs: list[tuple[str, str]]) -> list[bool]:
    """math_verify as its documentation shows it, with its own alarm-clock limit of 5 s."""
    return [same(parse(f"${reference}$"), parse(text)) for text, reference in pairs]


def seconds(
    work: Callable[[list[tuple[str, str]]], list[bool]], pairs: list[tuple[str, str]]
) -> tuple[float, list[bool]]:
    start = time.perf_counter()
    outcome = work(pairs)
    return time.perf_counter() - start, outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="independent repetitions (default 5)")
    num_rounds = parser.parse_args().rounds
    logging.disable(logging.CRITICAL)
    rng = random.Random(0)
    golds = references(rng)
    start = time.perf_counter()
    check_many([("\\boxed{x+x}", "2x")])
    print(f"start of the pool and first check: {time.perf_counter() - start:.2f} s")
    direct([("\\boxed{x+x}", "2x")])

    size = len(golds) // num_rounds
    rates: dict[str, list[float]] = {"math_verify": [], "check_many": []}
    agreed = total = 0
    for round_ in range(num_rounds):
        part = golds[round_ * size : (round_ + 1) * size]
        pairs = [pair for i, gold in enumerate(part) for pair in rollouts(gold, part[i - 1])]
        first, theirs = seconds(direct, pairs)
        second, ours = seconds(lambda pairs: [found.correct for found in check_many(pairs)], pairs)
        rates["math_verify"].append(len(pairs) / first)
        rates["check_many"].append(len(pairs) / second)
        agreed, total = agreed + sum(a == b for a, b in zip(theirs, ours, strict=True)), total + len(pairs)
    shutdown()

    for name, values in rates.items():
        print(f"{name:12s} {statistics.mean(values):8.0f} checks/s, spread {min(values):.0f} to {max(values):.0f}")
    ratios = [ours / theirs for ours, theirs in zip(rates["check_many"], rates["math_verify"], strict=True)]
    print(f"ratio        {statistics.mean(ratios):8.1f} x, spread {min(ratios):.1f} to {max(ratios):.1f}")
    print(f"same outcome on {agreed} of {total}; {size * 4} checks a round, {num_rounds} rounds")
    packages = ", ".join(f"{name} {version(name)}" for name in ("math-verify", "sympy", "pebble"))
    print(f"Python {platform.python_version()}, {packages}, inputs: {DATA.name if DATA.exists() else 'generated'}")


if __name__ == "__main__":
    main()
