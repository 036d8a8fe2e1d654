"""Score checks of final answers on pairs of known truth: check_answers of fapo.rewards, math-verify and TRL.

python -m benchmarks.answer_pairs [--list] [--part all|development|held_out]
python -m benchmarks.answer_pairs --hangs

tests/data/answer_pairs.jsonl has the pairs: reference, answer, whether they are equal, and the reason. A hash divides
them: the rules of fapo were written with the development part in view, while of the held-out part, which is as old,
only the totals were read. A false positive gives a wrong answer a reward; a false negative takes it from a right one.
math-verify gets the reference between dollar signs and the answer in a box, as in its documentation.

With --hangs, each side gets an answer that computer algebra never finishes, beside one that needs a moment, in the main
thread and in another one, each in a process of its own, which is stopped after 30 s.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import time
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


BEFORE = """
import logging, threading
from math_verify import parse, verify
from fapo.rewards import check_answers
check_answers([("\\\\boxed{x+x}", "2x")])
verify(parse("$2x$"), parse("$x+x$"))
"""
HANG_SIDES = {
    "check_answers": "[c.correct for c in check_answers([(t, r) for r, t in pairs])]",
    "math-verify": "[verify(parse(f'${r}$'), parse(t)) for r, t in pairs]",
    "math-verify, no limits": (
        "[verify(parse(f'${r}$', parsing_timeout=None), parse(t, parsing_timeout=None), timeout_seconds=None)"
        " for r, t in pairs]"
    ),
    "TRL accuracy_reward": "accuracy_reward([[{'content': t}] for r, t in pairs], [f'${r}$' for r, t in pairs])",
}
RUNAWAYS = {"power tower": "9^{9^{9^{9}}}", "long integer": "2^{40000000000}"}
LIMIT = 30.0
"""Seconds after which a process without a result is stopped."""


def hang(side: str, runaway: str, *, in_thread: bool) -> str:
    """Return what a side makes of a runaway answer to 7 and a right answer to 2x.

    Args:
        side: Name of the side.
        runaway: Answer that computer algebra does not finish.
        in_thread: Whether the check runs outside the main thread.

    Returns:
        Outcomes, or the error, with the seconds they took.
    """
    pairs = [("7", f"\\boxed{{{runaway}}}"), ("2x", "\\boxed{x+x}")]
    run = f"print({HANG_SIDES[side]}, flush=True)"
    code = BEFORE + "from trl.rewards import accuracy_reward\n" * (side.startswith("TRL"))
    code += f"logging.disable(50)\npairs = {pairs!r}\nrun = lambda: exec({run!r}, globals())\nprint(flush=True)\n"
    code += "t = threading.Thread(target=run)\nt.start()\nt.join()" if in_thread else "run()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout
        process.stdout.readline()  # all sides are warm
        start = time.perf_counter()
        try:
            output, errors = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            return f"no result in {LIMIT:g} s"
        seconds = time.perf_counter() - start
    return f"{output.strip() or errors.strip().splitlines()[-1][:60]} ({seconds:.0f} s)"


def print_hangs() -> None:
    """Print what each side makes of a runaway answer, which is wrong, and of an answer that is right."""
    for name, runaway in RUNAWAYS.items():
        for in_thread in (False, True):
            print(f"\n{name} {runaway}, {'another' if in_thread else 'main'} thread; right outcome: [False, True]")
            for side in HANG_SIDES:
                print(f"{side:24s} {hang(side, runaway, in_thread=in_thread)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="print the pairs on which a side is wrong")
    parser.add_argument("--part", choices=PARTS, help="score one part (default: each)")
    parser.add_argument("--hangs", action="store_true", help="try answers that computer algebra never finishes")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    if given.hangs:
        print_hangs()
        return
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
