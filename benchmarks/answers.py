"""Measure answer checks per second: check_answers of fapo.rewards against math_verify in this process.

python -m benchmarks.answers [--quick] [--rounds 5]

Each reference has four rollouts: a right one, one that is right but written differently, a wrong one, and one without
a boxed answer. References are those of math500.jsonl in the folder FAPO_TEST_DATA, otherwise generated ones of the
same kinds. On both sides processes are warm and results are not cached: every round has other references. The second
table adds answers that computer algebra never finishes. math_verify stops them by a signal after 5 s, and our time
limit is the same.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
from collections.abc import Callable
from pathlib import Path

from math_verify import parse
from math_verify import verify as same

from benchmarks.measuring.turns import cost_of, in_turn, machine, ratios, spread
from fapo.rewards.verify import check_answers, shutdown

Pairs = list[tuple[str, str]]
RUNAWAYS = ("9^{9^{9^{9}}}", "2^{3^{4^{5^{6}}}}")
"""Answers that computer algebra never finishes; each is compared with the reference 7."""
NUM_AMONG = 20
"""Number of groups of ordinary rollouts beside the runaways."""
DATA = Path(os.environ.get("FAPO_TEST_DATA", "")) / "math500.jsonl"


def references(rng: random.Random) -> list[str]:
    """Return reference answers in the proportions of MATH-500: three in five are plain integers."""
    if DATA.exists():
        found = [json.loads(line)["answer"] for line in DATA.read_text(encoding="utf-8").splitlines()]
        rng.shuffle(found)
        return found
    kinds = ("{a}",) * 6 + (r"\frac{{{a}}}{{{b}}}", r"{a}\sqrt{{{b}}}", r"\left( {a}, {b} \right)", "{a}x^2 - {b}x")
    return [rng.choice(kinds).format(a=rng.randint(2, 999), b=rng.randint(2, 99)) for _ in range(500)]


def rollouts(reference: str, other: str) -> list[tuple[str, str]]:
    """Return four solutions of one problem, each with the reference."""
    lead = "We simplify step by step, which leaves one possibility.\n\n"
    ends = (
        f"The answer is $\\boxed{{{reference}}}$.",
        f"The answer is $\\boxed{{{reference} + 0}}$.",
        f"The answer is $\\boxed{{{other}}}$.",
        "The answer is out of reach.",
    )
    return [(lead + end, reference) for end in ends]


def direct(pairs: list[tuple[str, str]]) -> list[bool]:
    """Check answers as in the documentation of math_verify, which has a time limit of 5 s."""
    return [same(parse(f"${reference}$"), parse(text)) for text, reference in pairs]


def pooled(pairs: Pairs) -> list[bool]:
    """Check answers in the worker processes of fapo."""
    return [found.correct for found in check_answers(pairs)]


def groups(golds: list[str]) -> Pairs:
    """Return the rollouts for all references; a wrong answer is the reference before."""
    return [pair for i, gold in enumerate(golds) for pair in rollouts(gold, golds[i - 1])]


def compare(title: str, inputs: list[Pairs]) -> None:
    """Run one round for each of the inputs and print a table."""
    sides: dict[str, Callable[[Pairs], list[bool]]] = {"check_answers": pooled, "math_verify": direct}
    results = in_turn(
        {name: lambda i, side=side: cost_of(lambda: side(inputs[i])) for name, side in sides.items()}, len(inputs)
    )
    print(f"\n{title}: {len(inputs[0])} checks a round, {len(inputs)} rounds")
    rates = {
        name: [len(pairs) / cost.seconds for pairs, (cost, _) in zip(inputs, turns, strict=True)]
        for name, turns in results.items()
    }
    for name, values in rates.items():
        print(f"{name:12s} {spread(values, 0)} checks/s")
    print(f"check_answers / math_verify: {spread(ratios(*rates.values()), 1)}")
    ours, theirs = ([outcome for _, found in turns for outcome in found] for turns in results.values())
    print(f"same outcome on {sum(map(bool.__eq__, ours, theirs))} of {len(ours)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two rounds on few references, one with runaways")
    parser.add_argument("--rounds", type=int, help="independent repetitions (default 5)")
    given = parser.parse_args()
    num_rounds = given.rounds or (2 if given.quick else 5)
    logging.disable(logging.CRITICAL)
    golds = references(random.Random(0))
    start, _ = cost_of(lambda: check_answers([("\\boxed{x+x}", "2x")]))
    print(f"start of the pool and first check: {start.seconds:.2f} s")
    direct([("\\boxed{x+x}", "2x")])

    hostile = [(f"The answer is $\\boxed{{{answer}}}$.", "7") for answer in RUNAWAYS]
    among = [golds[-(i + 1) * NUM_AMONG :][:NUM_AMONG] for i in range(1 if given.quick else 3)]
    rest = golds[: len(golds) - len(among) * NUM_AMONG]
    size = 10 if given.quick else len(rest) // num_rounds
    compare("ordinary answers", [groups(rest[i * size : (i + 1) * size]) for i in range(num_rounds)])
    compare(f"{len(RUNAWAYS)} runaways among them", [hostile + groups(part) for part in among])
    shutdown()
    print(
        machine("fapo", "math-verify", "sympy"),
        f"inputs: {DATA.name if DATA.exists() else 'generated'}",
        sep=", ",
    )


if __name__ == "__main__":
    main()
