"""The problems of the miniature: integer arithmetic that is written out line by line, so that each step can be checked.

A problem is a start value and a chain of operations. A correct solution writes one line per operation and ends in a
box. The form of the answer (the value, its remainder, or a letter) decides which errors the final answer hides. Modulo
10 hides an error in the tens digit, and the nearest of four choices hides a small error. Two slips can cancel.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from fapo.errors import DataError
from fapo.types import Problem

MAX_VALUE = 199
"""Largest number in any line, which is also the largest number with its own token."""

CHOICE_GAP = 25
"""Smallest difference between two choices."""

Split = Literal["train", "validation", "test"]
_WORDS = {"+": "add", "-": "minus", "*": "times"}
LETTERS = "ABCD"


@dataclass(frozen=True)
class Difficulty:
    """Settings of the generator of problems."""

    num_operations: tuple[int, int] = (2, 4)
    """Smallest and largest number of operations of a chain."""
    forms: tuple[str, ...] = ("mod 5", "mod 10")
    """Possible forms of the answer: "exact", "mod M", or "choice" (four letters). One that is given twice is drawn
    twice as often."""
    start: tuple[int, int] = (2, 60)
    """Smallest and largest start value."""


EASY = Difficulty()
"""Difficulty of the training: the answer hides a forgotten borrow."""
EXPOSED = Difficulty(forms=(*2 * EASY.forms, "exact"))
"""Difficulty of a training where one problem in five asks for the value itself, which a forgotten borrow changes."""
HARDER = Difficulty(num_operations=(5, 6), forms=("exact", "mod 7"))
"""Difficulty of longer chains, with answers that expose a forgotten borrow."""


@dataclass(frozen=True)
class Task:
    """One problem of the miniature, with its solution."""

    start: int
    """Start value."""
    operations: tuple[tuple[str, int], ...]
    """Chain of (operator, operand), applied from left to right."""
    form: str
    """Form of the answer: "exact", "mod M" or "choice"."""
    choices: tuple[int, ...] = ()
    """Four values to choose from, for the form "choice" only."""

    @property
    def values(self) -> tuple[int, ...]:
        """Value after each operation."""
        value, out = self.start, []
        for operator, operand in self.operations:
            value = apply(value, operator, operand)
            out.append(value)
        return tuple(out)

    @property
    def lines(self) -> tuple[str, ...]:
        """Lines of the correct solution; the last line is the box."""
        befores = (self.start, *self.values)
        steps = [line(b, o, a, v) for b, (o, a), v in zip(befores, self.operations, self.values, strict=False)]
        return (*steps, box(self.answer(self.values[-1])))

    def answer(self, value: int) -> str:
        """Return the final answer for a value: the value, its remainder, or the letter of the nearest choice."""
        if self.form == "exact":
            return str(value)
        if self.form == "choice":
            return min(zip(self.choices, LETTERS, strict=True), key=lambda choice: abs(choice[0] - value))[1]
        return str(value % int(self.form.split()[1]))

    @property
    def text(self) -> str:
        """Text of the question."""
        chain = ", ".join([f"start {self.start}", *(f"{_WORDS[o]} {a}" for o, a in self.operations)])
        if self.form == "choice":
            return f"{chain}; " + " ".join(f"{c}:{x}" for x, c in zip(LETTERS, self.choices, strict=True))
        return chain if self.form == "exact" else f"{chain}; {self.form}"

    def problem(self, source: str = "miniature") -> Problem:
        """Return the task as a problem of a data set; `parse` reads the task back from its text."""
        reference = self.answer(self.values[-1])
        return Problem(
            id=f"{source}-{zlib.crc32(self.text.encode()):08x}", text=self.text, reference=reference, source=source
        )


_TEXT = re.compile(r"start (\d+)((?:, (?:add|minus|times) \d+)+)(?:; (mod \d+)|; (\d+):A (\d+):B (\d+):C (\d+):D)?")


def parse(text: str) -> Task:
    """Return the task that a question states; raise DataError for a text that is not a question of the miniature."""
    match = _TEXT.fullmatch(text)
    if match is None:
        raise DataError(f"not a problem of the miniature: {text[:80]!r}; the oracle needs problems from miniature:NAME")
    operators = {word: operator for operator, word in _WORDS.items()}
    operations = tuple((operators[w], int(a)) for w, a in re.findall(r"(add|minus|times) (\d+)", match[2]))
    choices = tuple(int(c) for c in match.groups()[3:] if c is not None)
    return Task(int(match[1]), operations, "choice" if choices else match[3] or "exact", choices)


def apply(value: int, operator: str, operand: int) -> int:
    """Apply one operation.

    Args:
        value: Left operand.
        operator: "+", "-" or "*".
        operand: Right operand.

    Returns:
        The result.
    """
    return value + operand if operator == "+" else value - operand if operator == "-" else value * operand


def line(before: int, operator: str, operand: int, after: int) -> str:
    """Write one step as the policy does.

    Args:
        before: Value before the operation.
        operator: "+", "-" or "*".
        operand: Right operand.
        after: Value after the operation, right or wrong.

    Returns:
        The line, such as "17+5=22".
    """
    return f"{before}{operator}{operand}={after}"


def box(answer: str) -> str:
    """Return the last line of a solution."""
    return f"\\boxed{{{answer}}}"


def split_of(start: int, operations: tuple[tuple[str, int], ...]) -> Split:
    """Return the split of a chain, by a hash, so that no chain is in two splits.

    Args:
        start: Start value.
        operations: Chain of (operator, operand).

    Returns:
        The split: train for 80 % of the chains, validation and test for 10 % each.
    """
    bucket = zlib.crc32(repr((start, operations)).encode()) % 10
    return "train" if bucket < 8 else "validation" if bucket == 8 else "test"


def make(rng: random.Random, difficulty: Difficulty = EASY, split: Split = "train") -> Task:
    """Draw one task of a split.

    All numbers are at most MAX_VALUE, also those of a writer that forgets every borrow. Such a writer is 10 too high
    after a borrow, which the answer hides modulo 5 and modulo 10.

    Args:
        rng: Source of random numbers.
        difficulty: Difficulty of the task.
        split: Split of its chain.

    Returns:
        The task.
    """
    while True:
        start = value = high = rng.randint(*difficulty.start)  # high: the value of the writer that forgets borrows
        operations = []
        for _ in range(rng.randint(*difficulty.num_operations)):
            operator = rng.choice("+++--*")
            factors = [f for f in (2, 3, 4, 5) if high * f <= MAX_VALUE]
            if operator == "*" and factors and value > 1:
                operand = rng.choice(factors)
            elif (operator == "-" or high > MAX_VALUE - 20) and value > 3:
                operator, operand = "-", rng.randint(2, min(19, value - 1))
            else:
                operator, operand = "+", rng.randint(2, 19)
            operations.append((operator, operand))
            high = apply(high, operator, operand) + 10 * borrows(value, operator, operand)
            value = apply(value, operator, operand)
        if high <= MAX_VALUE and split_of(start, tuple(operations)) == split:
            break
    form = rng.choice(difficulty.forms)
    choices: tuple[int, ...] = ()
    if form == "choice":
        options = [value]
        while len(options) < 4:
            option = rng.randint(0, MAX_VALUE)
            if all(abs(option - other) >= CHOICE_GAP for other in options):
                options.append(option)
        rng.shuffle(options)
        choices = tuple(options)
    return Task(start, tuple(operations), form, choices)


def tasks(seed: int, num: int, difficulty: Difficulty = EASY, split: Split = "train") -> Iterator[Task]:
    """Draw different tasks of a split, always the same ones for a seed.

    Args:
        seed: Seed of the generator.
        num: Number of tasks.
        difficulty: Difficulty of the tasks.
        split: Split of their chains.

    Yields:
        The next task.
    """
    rng = random.Random(f"{seed}/{split}")
    seen: set[str] = set()
    while len(seen) < num:
        task = make(rng, difficulty, split)
        if task.text not in seen:
            seen.add(task.text)
            yield task


def borrows(before: int, operator: str, operand: int) -> bool:
    """Find out whether a line is a subtraction with a borrow from the tens.

    Args:
        before: Value before the operation.
        operator: "+", "-" or "*".
        operand: Right operand.

    Returns:
        Whether there is a borrow.
    """
    return operator == "-" and before % 10 < operand % 10
