"""Write critiques of the miniature by rules, for the base GenRM to imitate."""

from __future__ import annotations

import random
import re

from experiments.base_models.writers import Habits, written
from fapo.data.miniature.world import Task, box, line
from fapo.data.steps import split_steps

OK, WRONG = "ok", "no"


def critique(rng: random.Random, task: Task, response: str, habits: Habits) -> str:
    """Return the critique of a reviewer that solves the problem again and stops at the first line that differs.

    A line of the critique has three parts: the expected line, the result in the solution (`-` if its operation
    differs), and `ok` or `no`. The last line is the index of the first wrong step, or -1, in a box. The reviewer has
    the same kinds of habits as the writer. If it slips, it flags a correct line. If it forgets a borrow that the
    writer forgot, it misses a flaw.

    Args:
        rng: Source of random numbers.
        task: The task.
        response: Solution of the task, with one line for each step.
        habits: Habits of the reviewer.
    """
    given = [step.strip() for step in split_steps(response, "lines")]
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
    """Return the two sides of a line, such as ("17+5=", "22") or ("answer ", "3"); ("", "") for any other line."""
    match = _SIDES.fullmatch(step)
    return (match[1].replace("\\boxed{", "answer "), match[2]) if match else ("", "")
