"""Imperfect writers of solutions: the habits that the base models imitate."""

from __future__ import annotations

import random
from dataclasses import dataclass

from fapo.data.miniature.world import LETTERS, MAX_VALUE, Task, apply, borrows, box, line

# --- imperfect traces, from which the base models learn ---------------------------------------------------------------


@dataclass(frozen=True)
class Habits:
    """How imperfect the traces are that a base model is trained on. All are probabilities."""

    borrow: float = 0.85
    """A subtraction that borrows keeps its ten (52-17=45): a misconception, far more often wrong than right."""
    borrow_slip: float = 0.04
    """A subtraction whose borrow is not forgotten gets a wrong result."""
    slip: float = 0.01
    """A sum that carries, or a product, gets a wrong result."""
    easy_slip: float = 0.005
    """Any other line gets a wrong result."""
    skip: float = 0.01
    """A line (not the last operation) is left out and its value carried on in the head."""
    guess: float = 0.1
    """The solution stops somewhere and a random answer is boxed (where the form lets one guess)."""
    answer_slip: float = 0.4
    """The box of a finished solution does not hold what follows from the last line (where the form lets one guess)."""


PERFECT = Habits(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def slipped(rng: random.Random, value: int) -> int:
    """A wrong result near the right one."""
    while True:
        wrong = value + rng.choice((-3, -2, -1, 1, 2, 3))
        if 0 <= wrong <= MAX_VALUE:
            return wrong


def is_hard(before: int, operator: str, operand: int) -> bool:
    """Whether a line is a product or a sum with a carry."""
    return operator == "*" or (operator == "+" and before % 10 + operand % 10 > 9)


def written(rng: random.Random, before: int, operator: str, operand: int, habits: Habits) -> int:
    """The result an imperfect writer puts down."""
    result = apply(before, operator, operand)
    if not 0 <= result <= MAX_VALUE:  # an earlier error led out of the numbers there are
        return slipped(rng, min(max(result, 0), MAX_VALUE))
    if borrows(before, operator, operand) and result + 10 <= MAX_VALUE:
        if rng.random() < habits.borrow:
            return result + 10
        rate = habits.borrow_slip
    else:
        rate = habits.slip if is_hard(before, operator, operand) else habits.easy_slip
    return slipped(rng, result) if rng.random() < rate else result


def guessable(task: Task) -> tuple[str, ...]:
    """The answers a guess would choose from; empty where guessing is hopeless."""
    if task.form == "choice":
        return tuple(LETTERS)
    return () if task.form == "exact" else tuple(str(r) for r in range(int(task.form.split()[1])))


def trace(rng: random.Random, task: Task, habits: Habits) -> str:
    """A solution as an imperfect writer would write it."""
    value, lines = task.start, []
    options = guessable(task)
    stop = rng.randrange(len(task.operations)) if options and rng.random() < habits.guess else len(task.operations)
    for i, (operator, operand) in enumerate(task.operations[:stop]):
        result = written(rng, value, operator, operand, habits)
        if not (i < len(task.operations) - 1 and rng.random() < habits.skip):
            lines.append(line(value, operator, operand, result))
        value = result
    if stop < len(task.operations):
        answer = rng.choice(options)
    else:
        answer = task.answer(value)
        if options and rng.random() < habits.answer_slip:
            answer = rng.choice([option for option in options if option != answer])
    return "\n".join([*lines, box(answer)])
