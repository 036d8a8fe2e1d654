"""Read and write JSON Lines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from io import BufferedRandom
from pathlib import Path
from typing import Any

from fapo.data.columns import Row
from fapo.data.files import atomic_path
from fapo.errors import DataError

Located = tuple[str, Row]
"""Where a row stands ("file:line"), and the row."""


def read_jsonl(path: str | Path, *, ignore_torn_tail: bool = False) -> Iterator[Row]:
    """The rows of a JSONL file, one by one; blank lines are skipped. Raises DataError with file:line for a line that
    is no JSON object, except, if asked, for a last line that was cut off while being written (it has no newline).
    """
    return (row for _, row in _jsonl(Path(path), ignore_torn_tail))


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any] | Any], *, append: bool = False) -> None:
    """Write rows (mappings or dataclasses), one a line. A new file appears whole or not at all.

    With `append` the rows are added in one write, so that several writers do not mix lines; a torn last line, left by
    a crash, is removed first.
    """
    path = Path(path)
    content = b"".join(_line(row) for row in rows)
    if not append:
        with atomic_path(path) as draft:
            draft.write_bytes(content)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        _mend_tail(file)
        file.write(content)


def as_object(where: str, row: Any) -> Row:
    """The row itself. Raises DataError, with its place, if it is no JSON object."""
    if not isinstance(row, dict):
        raise DataError(f"{where}: must be a JSON object, is a {type(row).__name__}")
    return row


def _parse(where: str, content: bytes) -> Any:
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as failure:
        raise DataError(f"{where}: invalid UTF-8 at byte {failure.start}; save it as UTF-8") from None
    except RecursionError:
        raise DataError(f"{where}: JSON nested too deeply") from None
    except ValueError as failure:
        raise DataError(f"{where}: invalid JSON: {failure}") from None


def parse_row(where: str, line: bytes) -> Row:
    """One line of a JSONL file. Raises DataError, with its place, if it is no JSON object."""
    return as_object(where, _parse(where, line))


def _jsonl(path: Path, ignore_torn_tail: bool = False) -> Iterator[Located]:
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


def json_items(path: Path) -> Iterator[tuple[str, Any]]:
    """What the list in a .json file holds, each with its place. Raises DataError if it is no list."""
    items = _parse(str(path), path.read_bytes())
    if not isinstance(items, list):
        raise DataError(f"{path}: must be a list of objects, is a {type(items).__name__}")
    yield from ((f"{path}[{index}]", item) for index, item in enumerate(items))


def _json(path: Path) -> Iterator[Located]:
    return ((where, as_object(where, item)) for where, item in json_items(path))


def _line(row: Any) -> bytes:
    """One row. A lone surrogate, which UTF-8 cannot hold, becomes its JSON escape and comes back as it was."""
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
