"""Critiques of the miniature, written by rule: what the base GenRM is trained to imitate."""

from __future__ import annotations

import random
import re

from experiments.base_models.writers import Habits, written
from fapo.data.miniature.world import Task, box, line
from fapo.data.steps import split_steps

OK, WRONG = "ok", "no"


def critique(rng: random.Random, task: Task, response: str, habits: Habits) -> str:
    """Work the problem anew, line by line, beside the solution; stop at the first line that differs.

    Each line of the critique is what ought to stand there, the result that does stand there (`-` where it is another
    operation), and `ok` or `no`; the last is the index of the first wrong step, or -1, in a box. The reviewer has the
    same kinds of habits as the writer: where it slips it flags a sound line, where it forgets a borrow that the writer
    forgot it passes a flawed one.
    """
    given = [step.strip() for step in split_steps(response)]
    value, out = task.start, []
    for i in range(len(task.operations) + 1):
        if i < len(task.operations):
            before, value = value, written(rng, value, *task.operations[i], habits)
            expected = line(before, *task.operations[i], value)
        else:
            expected = box(task.answer(value))
        found = given[i] if i < len(given) else ""
        mark = OK if found == expected else WRONG
        left, right = _sides(expected)
        shown, result = _sides(found)
        out.append(f"{left}{right} {result if shown == left else '-'} {mark}")
        if mark == WRONG:
            return "\n".join([*out, f"\\boxed{{{max(min(i, len(given) - 1), 0)}}}"])
    return "\n".join([*out, f"\\boxed{{{len(task.lines) if len(given) > len(task.lines) else -1}}}"])


_SIDES = re.compile(r"(\d+[-+*]\d+=|\\boxed\{)(\d{1,6}|[A-D])\}?")


def _sides(step: str) -> tuple[str, str]:
    """What a line states, and the result it gives: ("17+5=", "22"), ("answer ", "3"); two blanks for any other text."""
    match = _SIDES.fullmatch(step)
    return (match[1].replace("\\boxed{", "answer "), match[2]) if match else ("", "")
