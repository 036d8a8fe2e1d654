"""Critiques of the miniature, written by rule: what the base GenRM is trained to imitate."""

from __future__ import annotations

import random

from fapo.miniature.world import Task, slipped
from fapo.steps import split

OK, WRONG = "ok", "no"


def critique(rng: random.Random, task: Task, response: str, slip: float = 0.0) -> str:
    """Work the problem anew, line by line, beside the solution; stop at the first line that differs.

    Each line of the critique is what ought to stand there, what does stand there, and `ok` or `no`; the last is the
    index of the first wrong step, or -1, in a box. With probability `slip` per line the reviewer itself gets a result
    wrong, and so flags a sound line or passes a flawed one: the noise of an untrained judge.
    """
    given = [step.strip() for step in split(response)]
    out: list[str] = []
    for i, wanted in enumerate(task.lines):
        expected = wanted
        if i < len(task.operations) and rng.random() < slip:
            left, right = wanted.split("=")
            expected = f"{left}={slipped(rng, int(right))}"
        found = given[i] if i < len(given) else "-"
        mark = OK if found == expected else WRONG
        out.append(f"{_quoted(expected)} {_quoted(found)} {mark}")
        if mark == WRONG:
            return "\n".join([*out, f"\\boxed{{{max(min(i, len(given) - 1), 0)}}}"])
    return "\n".join([*out, f"\\boxed{{{len(task.lines) if len(given) > len(task.lines) else -1}}}"])


def _quoted(step: str) -> str:
    """A step on one line and without a box: the only box of a critique is its verdict."""
    return " ".join(step.replace("\\boxed{", "answer ").replace("}", "").split())
