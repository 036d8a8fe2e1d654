"""Write imperfect solutions, for the base models to imitate."""

from __future__ import annotations

import random
from dataclasses import dataclass

from fapo.data.miniature.world import LETTERS, MAX_VALUE, Task, apply, borrows, box, line


@dataclass(frozen=True)
class Habits:
    """Probabilities of the errors of a writer."""

    borrow: float = 0.85
    """Probability that a subtraction forgets its borrow (52-17=45)."""
    borrow_slip: float = 0.04
    """Probability of a wrong result in a subtraction that does not forget its borrow."""
    slip: float = 0.01
    """Probability of a wrong result in a product or in a sum with a carry."""
    easy_slip: float = 0.005
    """Probability of a wrong result in any other line."""
    skip: float = 0.01
    """Probability that a line, other than the last operation, is left out."""
    guess: float = 0.1
    """Probability that the solution stops early with a random answer, if the answer can be guessed."""
    answer_slip: float = 0.4
    """Probability that the boxed answer does not follow from the last line, if the answer can be guessed."""
    skip_last: float = 0.0
    """Probability that the line of the last operation is left out."""
    no_answer: float = 0.0
    """Probability that the solution ends without a boxed answer."""
    repeat: float = 0.0
    """Probability that a line is written once more; of such a line, too."""


PERFECT = Habits(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def slipped(rng: random.Random, value: int) -> int:
    """Return a wrong result near the right one."""
    while True:
        wrong = value + rng.choice((-3, -2, -1, 1, 2, 3))
        if 0 <= wrong <= MAX_VALUE:
            return wrong


def is_hard(before: int, operator: str, operand: int) -> bool:
    """Return whether a line is a product or a sum with a carry."""
    return operator == "*" or (operator == "+" and before % 10 + operand % 10 > 9)


def written(rng: random.Random, before: int, operator: str, operand: int, habits: Habits) -> int:
    """Return the result that an imperfect writer writes."""
    result = apply(before, operator, operand)
    if not 0 <= result <= MAX_VALUE:  # after an earlier error the result can be out of range
        return slipped(rng, min(max(result, 0), MAX_VALUE))
    if borrows(before, operator, operand) and result + 10 <= MAX_VALUE:
        if rng.random() < habits.borrow:
            return result + 10
        rate = habits.borrow_slip
    else:
        rate = habits.slip if is_hard(before, operator, operand) else habits.easy_slip
    return slipped(rng, result) if rng.random() < rate else result


def guessable(task: Task) -> tuple[str, ...]:
    """Return the answers that a guess chooses from; empty if the answer cannot be guessed."""
    if task.form == "choice":
        return tuple(LETTERS)
    return () if task.form == "exact" else tuple(str(r) for r in range(int(task.form.split()[1])))


def trace(rng: random.Random, task: Task, habits: Habits) -> str:
    """Return the solution of an imperfect writer."""
    value, lines = task.start, []
    options = guessable(task)
    stop = rng.randrange(len(task.operations)) if options and rng.random() < habits.guess else len(task.operations)
    for i, (operator, operand) in enumerate(task.operations[:stop]):
        result = written(rng, value, operator, operand, habits)
        skip = habits.skip if i < len(task.operations) - 1 else habits.skip_last
        is_drawn = i < len(task.operations) - 1 or skip > 0  # the shipped models are built from these random numbers
        if not (is_drawn and rng.random() < skip):
            lines.append(line(value, operator, operand, result))
            while habits.repeat and rng.random() < habits.repeat:
                lines.append(lines[-1])
        value = result
    if stop < len(task.operations):
        answer = rng.choice(options)
    else:
        answer = task.answer(value)
        if options and rng.random() < habits.answer_slip:
            answer = rng.choice([option for option in options if option != answer])
    if habits.no_answer and rng.random() < habits.no_answer:
        return "\n".join(lines)
    return "\n".join([*lines, box(answer)])
