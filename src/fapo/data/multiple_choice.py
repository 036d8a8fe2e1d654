"""Write the choices of a multiple-choice question into its text, in an order drawn by a seed."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any

from fapo.errors import DataError

LETTERS = "ABCDEFGHIJ"
"""Letters of the choices; a question has at most ten."""
QUESTIONS = ("problem", "question", "prompt")
LISTS = ("choices", "options")
ANSWERS = ("answer", "reference", "ground_truth")
RIGHT, WRONG = "correct answer", "incorrect answer "
"""Columns of GPQA: the right answer, and the prefix of the numbered wrong answers."""


def with_choices(where: str, row: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Turn a row with separate choices into a row with a lettered question.

    The choices are the columns of GPQA, or a list of texts in `choices` or `options`. In a list, the right choice is
    given by its text, its letter or its index (from 0). An empty list is that of an open question. A question that
    already lists its choices, each behind its letter, stays as it is.

    Args:
        where: File and line of the row, for the message.
        row: Row of a data set.
        seed: Seed of the order of the choices, which depends on the seed and the question alone.

    Returns:
        A row with the choices in the question and a letter in `answer`; a row without choices is returned as it is.

    Raises:
        DataError: The choices cannot be used, or the right one is not among them.
    """
    lower = {name.lower(): name for name in row}
    question_column = next((lower[name] for name in QUESTIONS if isinstance(row.get(lower.get(name, "")), str)), None)
    lists = (name for name in LISTS if isinstance(row.get(lower.get(name, "")), list))
    list_column = next((lower[name] for name in lists if row[lower[name]]), None)
    if question_column is None or (RIGHT not in lower and list_column is None):
        return dict(row)
    if RIGHT in lower:
        used = [lower[RIGHT], *(lower[name] for name in sorted(lower) if name.startswith(WRONG))]
        choices, right = [row[name] for name in used], 0
    else:
        assert list_column is not None
        answer_column = next((lower[name] for name in ANSWERS if row.get(lower.get(name, "")) is not None), "")
        used, choices = [list_column, answer_column], list(row[list_column])
        right = _index(where, choices, row.get(answer_column))
    if not 2 <= len(choices) <= len(LETTERS) or not all(
        isinstance(choice, str) and choice.strip() for choice in choices
    ):
        raise DataError(f"{where}: needs 2 to {len(LETTERS)} choices, each a text that is not empty")
    rest = {name: value for name, value in row.items() if name not in used}
    if _lettered(row[question_column], choices):
        return {**rest, "answer": LETTERS[right]}
    order = list(range(len(choices)))
    name = f"{seed}:{row[question_column]}".encode("utf-8", "backslashreplace").decode()  # no lone surrogates
    random.Random(name).shuffle(order)
    lines = [f"{letter}) {choices[index].strip()}" for letter, index in zip(LETTERS, order, strict=False)]
    listing = "\n".join(lines)
    return {
        **rest,
        question_column: f"{row[question_column].rstrip()}\n\n{listing}",
        "answer": LETTERS[order.index(right)],
    }


def _lettered(question: str, choices: list[str]) -> bool:
    """Return whether a question lists its choices, as "A) iron", "(A) iron", "A. iron" or "A: iron"."""
    return all(
        re.search(rf"(?<!\w){letter}[).:]\s*{re.escape(choice.strip())}", question)
        for letter, choice in zip(LETTERS, choices, strict=False)
    )


def _index(where: str, choices: list[Any], answer: Any) -> int:
    """Return the index of the right choice, which is given by text, letter or index."""
    if choices.count(answer) == 1 and isinstance(answer, str):
        return choices.index(answer)
    if isinstance(answer, str) and answer.strip() in tuple(LETTERS[: len(choices)]):
        return LETTERS.index(answer.strip())
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices):
        return answer
    raise DataError(f"{where}: the answer is {str(answer)[:40]!r}, must be the text, letter or index of one choice")
