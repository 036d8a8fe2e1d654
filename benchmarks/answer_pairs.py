"""Score checks of final answers on pairs of known truth: check_answers of fapo.rewards, math-verify and TRL.

python -m benchmarks.answer_pairs [--list] [--part all|development|held_out]

tests/data/answer_pairs.jsonl has the pairs: reference, answer, whether they are equal, and the reason. A hash divides
them: the rules of fapo were written with the development part in view, while of the held-out part, which is as old,
only the totals were read. A false positive gives a wrong answer a reward; a false negative takes it from a right one.
math-verify gets the reference between dollar signs and the answer in a box, as in its documentation.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from math_verify import parse
from math_verify import verify as same
from trl.rewards import accuracy_reward

from fapo.rewards import check_answers

PAIRS = Path(__file__).parents[1] / "tests" / "data" / "answer_pairs.jsonl"
PARTS = ("all", "development", "held_out")


@dataclass(frozen=True)
class Pair:
    """Reference and answer of known truth."""

    reference: str
    answer: str
    equal: bool
    """Whether they are equal."""
    reason: str
    """Why they are equal or not; pairs with the same reason are one group."""

    @property
    def text(self) -> str:
        """A solution that ends with the answer."""
        return f"It follows that the answer is $\\boxed{{{self.answer}}}$."

    @property
    def part(self) -> str:
        """The part that the pair belongs to."""
        held_out = sha256(f"{self.reference}\n{self.answer}".encode()).digest()[0] % 2
        return PARTS[1 + held_out]


def read_pairs(part: str = "all") -> list[Pair]:
    """Return the pairs of a part."""
    pairs = [Pair(**json.loads(line)) for line in PAIRS.read_text(encoding="utf-8").splitlines()]
    return [pair for pair in pairs if part in ("all", pair.part)]


def by_fapo(pairs: Sequence[Pair]) -> list[bool]:
    """Return the outcomes of fapo."""
    return [found.correct for found in check_answers([(pair.text, pair.reference) for pair in pairs])]


def by_math_verify(pairs: Sequence[Pair]) -> list[bool]:
    """Return the outcomes of math-verify with its default settings."""
    return [same(parse(f"${pair.reference}$"), parse(pair.text)) for pair in pairs]


def by_trl(pairs: Sequence[Pair]) -> list[bool]:
    """Return the outcomes of TRL's accuracy_reward; where it skips a rollout, no answer is right."""
    completions = [[{"role": "assistant", "content": pair.text}] for pair in pairs]
    return [value == 1 for value in accuracy_reward(completions, [f"${pair.reference}$" for pair in pairs])]


SIDES: dict[str, Callable[[Sequence[Pair]], list[bool]]] = {
    "check_answers": by_fapo,
    "math-verify": by_math_verify,
    "TRL accuracy_reward": by_trl,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print the pairs on which a side is wrong")
    parser.add_argument("--part", choices=PARTS, help="score one part (default: each)")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    print(f"{'part':12s} {'side':20s} {'pairs':>6s} {'agree':>6s} {'false positive':>15s} {'false negative':>15s}")
    wrong: list[str] = []
    for part in [given.part] if given.part else PARTS:
        pairs = read_pairs(part)
        for side, outcomes_of in SIDES.items():
            failed = [(p, o) for p, o in zip(pairs, outcomes_of(pairs), strict=True) if o is not p.equal]
            positives = sum(outcome for _, outcome in failed)
            counts = f"{len(pairs):6d} {len(pairs) - len(failed):6d} {positives:15d} {len(failed) - positives:15d}"
            print(f"{part:12s} {side:20s} {counts}")
            wrong += [
                f"{part}\t{side}\tfalse {'positive' if outcome else 'negative'}\t{pair.answer} for {pair.reference}"
                f"\t({pair.reason})"
                for pair, outcome in failed
            ]
    if given.list:
        print(*wrong, sep="\n")
    print(", ".join(f"{name} {version(name)}" for name in ("fapo", "math-verify", "trl")))


if __name__ == "__main__":
    main()
