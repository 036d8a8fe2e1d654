"""Multiple choice: a row with separate choices becomes a question that lists them, in an order drawn by a seed."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any

from fapo.errors import DataError

LETTERS = "ABCDEFGHIJ"
QUESTIONS = ("problem", "question", "prompt")
LISTS = ("choices", "options")
ANSWERS = ("answer", "reference", "ground_truth")
RIGHT, WRONG = "correct answer", "incorrect answer "
"""GPQA's columns: one right answer, and several wrong ones that are numbered."""


def with_choices(where: str, row: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """A row with choices as one whose question lists them and whose answer is a letter; any other row as it is.

    Choices are those of GPQA, or a list of texts in `choices` or `options` with the right one given by its text, its
    letter or its index (from 0). Their order depends on the seed and the question alone. A question that already lists
    its choices, each behind its letter, stays as it is. Raises DataError with the row's place.
    """
    lower = {name.lower(): name for name in row}
    asked = next((lower[name] for name in QUESTIONS if isinstance(row.get(lower.get(name, "")), str)), None)
    listed = next((lower[name] for name in LISTS if isinstance(row.get(lower.get(name, "")), list)), None)
    if asked is None or (RIGHT not in lower and listed is None):
        return dict(row)
    if RIGHT in lower:
        used = [lower[RIGHT], *(lower[name] for name in sorted(lower) if name.startswith(WRONG))]
        choices, right = [row[name] for name in used], 0
    else:
        assert listed is not None
        told = next((lower[name] for name in ANSWERS if row.get(lower.get(name, "")) is not None), "")
        used, choices = [listed, told], list(row[listed])
        right = _index(where, choices, row.get(told))
    if not 2 <= len(choices) <= len(LETTERS) or not all(
        isinstance(choice, str) and choice.strip() for choice in choices
    ):
        raise DataError(f"{where}: needs 2 to {len(LETTERS)} choices, each a text that is not empty")
    rest = {name: value for name, value in row.items() if name not in used}
    if _lettered(row[asked], choices):
        return {**rest, "answer": LETTERS[right]}
    order = list(range(len(choices)))
    random.Random(f"{seed}:{row[asked]}").shuffle(order)
    lines = [f"{letter}) {choices[index].strip()}" for letter, index in zip(LETTERS, order, strict=False)]
    listing = "\n".join(lines)
    return {**rest, asked: f"{row[asked].rstrip()}\n\n{listing}", "answer": LETTERS[order.index(right)]}


def _lettered(question: str, choices: list[str]) -> bool:
    """Whether a question lists its choices, as "A) iron" or "(A) iron", "A. iron", "A: iron"."""
    return all(
        re.search(rf"(?<!\w){letter}[).:]\s*{re.escape(choice.strip())}", question)
        for letter, choice in zip(LETTERS, choices, strict=False)
    )


def _index(where: str, choices: list[Any], told: Any) -> int:
    """Which of the choices is right."""
    if choices.count(told) == 1 and isinstance(told, str):
        return choices.index(told)
    if isinstance(told, str) and told.strip() in tuple(LETTERS[: len(choices)]):
        return LETTERS.index(told.strip())
    if isinstance(told, int) and not isinstance(told, bool) and 0 <= told < len(choices):
        return told
    raise DataError(f"{where}: the answer is {str(told)[:40]!r}, must be the text, letter or index of one choice")
