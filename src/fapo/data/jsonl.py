"""Read and write JSON Lines; a crash while rows are added costs at most the last line."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from io import BufferedRandom
from pathlib import Path
from typing import Any

from fapo.data.columns import Row
from fapo.data.files import atomic_path
from fapo.errors import DataError

PlacedRow = tuple[str, Row]
"""Place of a row ("file:line", for messages), and the row."""


def read_jsonl(path: str | Path, *, ignore_torn_tail: bool = False) -> Iterator[Row]:
    """Read the rows of a JSONL file one by one; blank lines are skipped.

    Args:
        path: JSONL file.
        ignore_torn_tail: Whether an invalid last line without a newline is ignored: a crash cut it off.

    Returns:
        An iterator over the rows.

    Raises:
        DataError: A line is not a JSON object; the message has file and line.
    """
    return (row for _, row in jsonl_rows(Path(path), ignore_torn_tail))


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any] | Any], *, append: bool = False) -> None:
    """Write rows, one a line.

    Args:
        path: JSONL file. A new file appears only when it is complete.
        rows: Mappings or dataclasses.
        append: Whether the rows are added to an existing file, in one write, so that several writers do not mix lines.
            A torn last line, left by a crash, is removed first.
    """
    path = Path(path)
    lines = map(_line, rows)
    if not append:
        with atomic_path(path) as draft, draft.open("wb") as file:
            file.writelines(lines)
        return
    content = b"".join(lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as appended:
        _mend_tail(appended)
        appended.write(content)


def jsonl_rows(path: Path, ignore_torn_tail: bool = False) -> Iterator[PlacedRow]:
    """Read the rows of a JSONL file with their places.

    Args:
        path: JSONL file.
        ignore_torn_tail: As for `read_jsonl`.

    Yields:
        The place of a row, and the row.

    Raises:
        DataError: A line is not a JSON object.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}:{number}"
            if not line.strip():
                continue
            try:
                row = parse_row(where, line)
            except DataError:
                if ignore_torn_tail and not line.endswith(b"\n"):
                    return
                raise
            yield where, row


def json_rows(path: Path) -> Iterator[PlacedRow]:
    """Return the rows of a .json file, a list of objects, with their places; raise DataError for anything else."""
    return ((where, as_object(where, item)) for where, item in json_items(path))


def json_items(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the items of the list in a .json file with their places; raise DataError if it is not a list."""
    items = _parse(str(path), path.read_bytes())
    if not isinstance(items, list):
        raise DataError(f"{path}: must be a list of objects, is a {type(items).__name__}")
    yield from ((f"{path}[{index}]", item) for index, item in enumerate(items))


def parse_row(where: str, line: bytes) -> Row:
    """Parse one line of a JSONL file.

    Args:
        where: File and line, for the message.
        line: Content of the line.

    Returns:
        The row.

    Raises:
        DataError: The line is not a JSON object.
    """
    return as_object(where, _parse(where, line))


def as_object(where: str, row: Any) -> Row:
    """Return a parsed value if it is a JSON object, else raise DataError with its place."""
    if not isinstance(row, dict):
        raise DataError(f"{where}: must be a JSON object, is a {type(row).__name__}")
    return row


def finite(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table with null for each number that is not finite, at any depth: JSON has no NaN or infinity."""
    return {key: _finite(item) for key, item in table.items()}


def _finite(value: Any) -> Any:
    """Return a value with null for each number that is not finite."""
    if isinstance(value, Mapping):
        return finite(value)
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def finite_number(value: Any) -> float | None:
    """Return a number read from a file as a float; None for anything that is not a finite number, bool included."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and math.isfinite(value) else None


def _parse(where: str, content: bytes) -> Any:
    """Return the JSON value in some bytes, or raise DataError with its place."""
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as failure:
        raise DataError(f"{where}: invalid UTF-8 at byte {failure.start}; save it as UTF-8") from None
    except RecursionError:
        raise DataError(f"{where}: JSON nested too deeply") from None
    except ValueError as failure:
        raise DataError(f"{where}: invalid JSON: {failure}") from None


def _line(row: Any) -> bytes:
    """Return a row as a line; a lone surrogate, which UTF-8 cannot hold, becomes its JSON escape."""
    record = asdict(row) if is_dataclass(row) and not isinstance(row, type) else dict(row)
    return json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _mend_tail(file: BufferedRandom) -> None:
    """Make the file end in a newline: complete a last row that is whole, remove one that is torn."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 1))
    if file.read(1) in (b"", b"\n"):
        return
    file.seek(0)
    tail = file.read().rpartition(b"\n")[2]
    try:
        parse_row(file.name, tail)
    except DataError:
        file.truncate(size - len(tail))
    else:
        file.write(b"\n")
