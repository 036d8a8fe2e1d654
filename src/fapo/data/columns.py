"""Column names that data sets use for the same thing."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from fapo.errors import DataError

Row = dict[str, Any]

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "id": ("id", "unique_id", "problem_id", "uid"),
    "problem": ("problem", "question", "prompt", "input"),
    "reference": (
        *("reference", "answer", "ground_truth", "reward_model.ground_truth", "gts", "final_answer", "solution"),
    ),
    "source": ("source", "data_source"),
    "solution": ("steps", "response", "completion", "output"),
    "correct": ("final_answer_correct", "correct"),
}
"""Field -> columns it may stand in. The first one present counts; upper and lower case are the same. "input", "output"
and "gts" are columns of verl's rollout dumps, "prompt" and "completion" of TRL's logs."""


def find_columns(
    where: str, row: Row, aliases: Mapping[str, tuple[str, ...]], needed: Collection[str]
) -> dict[str, str]:
    """Return the name of the column that holds each field; fields without a column are left out.

    Args:
        where: File and line, for the message.
        row: The row.
        aliases: Field -> columns it may stand in, such as `COLUMNS` or a part of it.
        needed: Fields that must be there.

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


def as_question_text(where: str, name: str, value: Any) -> str:
    """Return the text of a question: the value itself, or the last user turn of a conversation.

    Args:
        where: File and line, for the message.
        name: Name of the column, for the message.
        value: Value of the column.

    Raises:
        DataError: The value holds no text.
    """
    if isinstance(value, list):
        asked = [turn.get("content") for turn in value if isinstance(turn, dict) and turn.get("role") == "user"]
        value = asked[-1] if asked else None
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: {name} must be a text that is not empty, or a conversation with a user's turn")
    return value


def as_scalar_text(where: str, name: str, value: Any) -> str:
    """Return an id or an answer as text.

    Args:
        where: File and line, for the message.
        name: Name of the column, for the message.
        value: Text, or a finite number. Tables write NaN where a value is missing, so NaN is an error.

    Raises:
        DataError: The value is neither.
    """
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise DataError(f"{where}: {name} is {str(value)[:40]!r}, must be a text that is not empty or a number")
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"{where}: {name} is {value}, must be a text or a finite number")
    return str(value)


LABEL_COLUMNS = {"steps", "response", "label", "final_answer_correct", "critique"}
