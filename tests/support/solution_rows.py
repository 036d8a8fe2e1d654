"""Rows of solutions that are to be judged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fapo.data.jsonl import write_jsonl

Row = dict[str, Any]
ROW: Row = {"problem": "What is 1+1?", "reference": "2", "response": "1+1=2\n\nSo \\boxed{2}."}


def row(**changed: Any) -> Row:
    """Return a usual row with some columns changed; None removes a column."""
    return {key: value for key, value in (ROW | changed).items() if value is not None}


def written(path: Path, rows: Sequence[Row]) -> Path:
    """Write rows to a JSONL file, and return it."""
    write_jsonl(path, rows)
    return path
