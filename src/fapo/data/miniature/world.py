"""The miniature world: integer arithmetic written out line by line, in which the truth of every step is known.

A problem is a start value and a chain of operations. A correct solution writes one line per operation and ends in a
box. What the box asks for (the value, its remainder, or a letter) decides how much of the reasoning the final answer
can hide: modulo 10 hides the tens digit, the nearest of four choices hides a small error, two slips can cancel.
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
"""Largest number that occurs in any line; also the largest number with a token of its own."""

CHOICE_GAP = 25
"""Choices are at least this far apart."""

Split = Literal["train", "validation", "test"]
FlawKind = Literal["slip", "skip", "guess", "cancellation", "format"]
_WORDS = {"+": "add", "-": "minus", "*": "times"}
LETTERS = "ABCD"


@dataclass(frozen=True)
class Difficulty:
    """The knobs of the generator."""

    num_operations: tuple[int, int] = (2, 4)
    """Fewest and most operations of a chain."""
    forms: tuple[str, ...] = ("mod 5", "mod 10")
    """What may be asked for: "exact", "mod M", or "choice" (four letters)."""
    start: tuple[int, int] = (2, 60)
    """Smallest and largest start value."""


EASY = Difficulty()
HARDER = Difficulty(num_operations=(5, 6), forms=("exact", "mod 7"))


@dataclass(frozen=True)
class Task:
    """One problem of the miniature, with its solution."""

    start: int
    """The first value."""
    operations: tuple[tuple[str, int], ...]
    """(operator, operand), applied from left to right."""
    form: str
    """"exact", "mod M" or "choice"."""
    choices: tuple[int, ...] = ()
    """The four values offered (form "choice" only)."""

    @property
    def values(self) -> tuple[int, ...]:
        """The value after each operation."""
        value, out = self.start, []
        for operator, operand in self.operations:
            value = apply(value, operator, operand)
            out.append(value)
        return tuple(out)

    @property
    def lines(self) -> tuple[str, ...]:
        """The correct solution, line by line; the last line is the box."""
        befores = (self.start, *self.values)
        steps = [line(b, o, a, v) for b, (o, a), v in zip(befores, self.operations, self.values, strict=False)]
        return (*steps, box(self.answer(self.values[-1])))

    def answer(self, value: int) -> str:
        """The final answer that follows from `value`: itself, its remainder, or the letter of the nearest choice."""
        if self.form == "exact":
            return str(value)
        if self.form == "choice":
            return min(zip(self.choices, LETTERS, strict=True), key=lambda choice: abs(choice[0] - value))[1]
        return str(value % int(self.form.split()[1]))

    @property
    def text(self) -> str:
        """The question, as the policy reads it."""
        chain = ", ".join([f"start {self.start}", *(f"{_WORDS[o]} {a}" for o, a in self.operations)])
        if self.form == "choice":
            return f"{chain}; " + " ".join(f"{c}:{x}" for x, c in zip(LETTERS, self.choices, strict=True))
        return chain if self.form == "exact" else f"{chain}; {self.form}"

    def problem(self, source: str = "miniature") -> Problem:
        """The same as a `Problem`; its text carries all there is to know."""
        reference = self.answer(self.values[-1])
        return Problem(
            id=f"{source}-{zlib.crc32(self.text.encode()):08x}", text=self.text, reference=reference, source=source
        )


_TEXT = re.compile(r"start (\d+)((?:, (?:add|minus|times) \d+)+)(?:; (mod \d+)|; (\d+):A (\d+):B (\d+):C (\d+):D)?")


def parse(text: str) -> Task:
    """The task a question states. Raises DataError for a text that is no question of the miniature."""
    match = _TEXT.fullmatch(text)
    if match is None:
        raise DataError(f"not a problem of the miniature: {text[:80]!r}; the oracle needs problems from miniature:NAME")
    operators = {word: operator for operator, word in _WORDS.items()}
    operations = tuple((operators[w], int(a)) for w, a in re.findall(r"(add|minus|times) (\d+)", match[2]))
    choices = tuple(int(c) for c in match.groups()[3:] if c is not None)
    return Task(int(match[1]), operations, "choice" if choices else match[3] or "exact", choices)


def apply(value: int, operator: str, operand: int) -> int:
    """One operation, exactly."""
    return value + operand if operator == "+" else value - operand if operator == "-" else value * operand


def line(before: int, operator: str, operand: int, after: int) -> str:
    """One step as the policy writes it, `17+5=22`."""
    return f"{before}{operator}{operand}={after}"


def box(answer: str) -> str:
    """The last line."""
    return f"\\boxed{{{answer}}}"


def split_of(start: int, operations: tuple[tuple[str, int], ...]) -> Split:
    """The split a chain belongs to, by hash: a chain is never in two splits, whatever is asked about it."""
    bucket = zlib.crc32(repr((start, operations)).encode()) % 10
    return "train" if bucket < 8 else "validation" if bucket == 8 else "test"


def make(rng: random.Random, difficulty: Difficulty = EASY, split: Split = "train") -> Task:
    """Draw one task of a split: numbers stay within MAX_VALUE, also for a writer that forgets every borrow.

    So the misconception costs nothing where the answer hides it: modulo 5 and 10 an outcome reward is blind to it.
    """
    while True:
        start = value = high = rng.randint(*difficulty.start)  # high: what that writer has
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
    """`num` different tasks of a split, always the same ones for a seed."""
    rng = random.Random(f"{seed}/{split}")
    seen: set[str] = set()
    while len(seen) < num:
        task = make(rng, difficulty, split)
        if task.text not in seen:
            seen.add(task.text)
            yield task


def borrows(before: int, operator: str, operand: int) -> bool:
    """Whether a line is a subtraction with a borrow from the tens."""
    return operator == "-" and before % 10 < operand % 10
