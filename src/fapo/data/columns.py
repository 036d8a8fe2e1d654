"""The columns of a data set: their usual names, and checks of their values."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any

from fapo.errors import DataError

Row = dict[str, Any]
"""One row of a data set: column -> value."""

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "unique_id", "problem_id", "uid"),
    "problem": ("problem", "question", "prompt", "input"),
    "reference": (
        *("reference", "ground_truth", "reward_model.ground_truth", "gts", "answer", "final_answer", "solution"),
    ),
    "source": ("source", "data_source"),
    "solution": ("steps", "trajectory", "response", "completion", "output"),
    "correct": ("final_answer_correct", "correct"),
}
"""Usual column names of each field, in order of preference; upper and lower case are the same.

"answer" stands after the names that can only mean the correct answer: in a table of rollouts it may be the model's.
"input", "output" and "gts" are columns of rollout dumps of verl; "prompt" and "completion" are columns of logs of TRL.
"trajectory" is a column of our own rollouts.jsonl, for rollouts of several turns.
"""
LABEL_COLUMNS = {"steps", "response", "label", "final_answer_correct", "critique"}
"""Columns of labelled solutions, which do not become metadata of the problem."""


def find_columns(
    where: str, row: Row, aliases: Mapping[str, tuple[str, ...]], needed: Collection[str]
) -> dict[str, str]:
    """Find the columns that hold the fields of a record.

    Args:
        where: File and line of the row, for the message.
        row: Row of a data set.
        aliases: Column names of each field in order of preference, such as `COLUMNS` or a part of it.
        needed: Fields that must have a column.

    Returns:
        Field -> name of its column; fields without a column are left out.

    Raises:
        DataError: A needed field has no column.
    """
    lower = {name.lower(): name for name in row}
    found = {}
    for field, names in aliases.items():
        present = [
            name for name in (lower.get(name.lower(), name) for name in names) if get_nested(row, name) is not None
        ]
        if present:
            found[field] = present[0]
        elif field in needed:
            expected, given = " or ".join(names), ", ".join(row) or "none"
            raise DataError(f"{where}: no {field}: expected {expected}; its columns are {given}")
    return found


def get_nested(row: Row, name: str) -> Any:
    """Return the value of a column, or of a key inside a column ("a.b"); None if it is missing."""
    if name in row or "." not in name:
        return row.get(name)
    outer, inner = name.split(".", 1)
    return get_nested(row[outer], inner) if isinstance(row.get(outer), dict) else None


def only_item(value: Any) -> Any:
    """Return the item of a list of one item, as OlympiadBench has for an answer; any other value as it is."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def as_question_text(where: str, name: str, value: Any) -> str:
    """Read the text of a question.

    Args:
        where: File and line of the row, for the message.
        name: Name of the column, for the message.
        value: Text, or a conversation (list of messages).

    Returns:
        The text, or the last user message of the conversation.

    Raises:
        DataError: The value holds no text.
    """
    if isinstance(value, list):
        questions = [turn.get("content") for turn in value if isinstance(turn, dict) and turn.get("role") == "user"]
        value = questions[-1] if questions else None
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: {name} must be a text that is not empty, or a conversation with a user's turn")
    return value


def as_scalar_text(where: str, name: str, value: Any) -> str:
    """Read an id or an answer.

    Args:
        where: File and line of the row, for the message.
        name: Name of the column, for the message.
        value: Text, or a finite number. Tables write NaN where a value is missing, so NaN is an error.

    Returns:
        The value as text, see `plain_text`.

    Raises:
        DataError: The value is neither a text nor a finite number, or the text is empty.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        kind = type(value).__name__
        raise DataError(
            f"{where}: {name} is {str(value)[:40]!r} ({kind}), must be a text that is not empty, an int or a float"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"{where}: {name} is {value}, must be a text or a finite number")
    return plain_text(value)


def plain_text(value: str | float) -> str:
    """Return a text or a finite number as text, a number without an exponent: 1e-05 is 0.00001."""
    return format(Decimal(repr(float(value))), "f") if isinstance(value, float) else str(value)
