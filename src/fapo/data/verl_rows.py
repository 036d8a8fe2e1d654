"""Write data sets as Parquet files in the format of verl."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fapo.data.files import atomic_path
from fapo.types import Message


def verl_row(
    *, data_source: str, prompt: list[Message], ability: str, ground_truth: str, extra_info: Mapping[str, Any]
) -> dict[str, Any]:
    """Make one row of a verl data set.

    Args:
        data_source: Name by which verl chooses a reward function and groups its validation metrics.
        prompt: Conversation that the model is given.
        ability: Kind of task, such as "math".
        ground_truth: Reference answer, or the label of a solution as text.
        extra_info: Everything else that the reward function needs.

    Returns:
        The row, with the columns that verl expects.
    """
    return {
        "data_source": data_source,
        "prompt": prompt,
        "ability": ability,
        "reward_model": {"style": "rule", "ground_truth": ground_truth},
        "extra_info": dict(extra_info),
    }


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as one Parquet file.

    Args:
        path: File to write; it appears only when it is complete.
        rows: Rows. A lone surrogate, which Parquet cannot store, becomes its escape sequence.
    """
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist([_encodable(dict(row)) for row in rows])
    with atomic_path(path) as draft:
        pyarrow.parquet.write_table(table, draft)


def _encodable(value: Any) -> Any:
    """Return a value with an escape sequence for each lone surrogate, at any depth."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _encodable(item) for key, item in value.items()}
    return [_encodable(item) for item in value] if isinstance(value, list) else value
