"""Critiques of the miniature, written by rule: what the base GenRM is trained to imitate."""

from __future__ import annotations

import random

from fapo.miniature.world import Task, slipped
from fapo.steps import split

OK, WRONG = "ok", "no"


def critique(rng: random.Random, task: Task, response: str, slip: float = 0.0) -> str:
    """Work the problem anew, line by line, beside the solution; stop at the first line that differs.

    Each line of the critique is what ought to stand there, then `ok` or `no`; the last is the index of the first wrong
    step, or -1, in a box. With probability `slip` per line the reviewer itself gets a result wrong, and so flags a
    sound line or passes a flawed one: the noise of an untrained judge.
    """
    given = [step.strip() for step in split(response)]
    out: list[str] = []
    for i, wanted in enumerate(task.lines):
        last = i == len(task.operations)
        expected = wanted
        if not last and rng.random() < slip:
            left, right = wanted.split("=")
            expected = f"{left}={slipped(rng, int(right))}"
        shown = expected.replace("\\boxed{", "answer ").rstrip("}")
        if i >= len(given) or given[i] != expected:
            return "\n".join([*out, f"{shown} {WRONG}", f"\\boxed{{{max(min(i, len(given) - 1), 0)}}}"])
        out.append(f"{shown} {OK}")
    return "\n".join([*out, f"\\boxed{{{len(task.lines) if len(given) > len(task.lines) else -1}}}"])
