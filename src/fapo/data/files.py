"""Write files and folders that exist only when they are complete."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fapo.errors import ConfigError

_SQLITE = b"SQLite format 3\0"
"""First bytes of an SQLite database."""


@contextlib.contextmanager
def atomic_path(path: str | Path, draft: str | Path | None = None) -> Iterator[Path]:
    """Write a file or a folder under another name, and rename it when the block ends.

    If the block raises, or is interrupted, the draft is deleted and an older file or folder at `path` stays as it was.
    Missing parent folders are created. A symbolic link stays, and what it points to is replaced.

    Args:
        path: File or folder to write.
        draft: Path of the draft, for writers that must know it; it must be on the same file system as `path`, which is
            then no link. By default its name holds the process id, so that two processes may write the same file.

    Yields:
        The path of the draft; the block writes a file or a folder there.

    Raises:
        ConfigError: The path is a device, a pipe or a socket.
    """
    path = Path(path) if draft else Path(path).resolve()
    _check_no_device(path)
    draft = Path(draft or path.with_name(f"{path.name}.{os.getpid()}.tmp"))
    draft.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield draft
        if draft.is_dir() and path.is_dir():  # a folder that is not empty cannot be replaced in one call
            shutil.rmtree(path)
        draft.replace(path)
    except BaseException:
        if draft.is_dir():
            shutil.rmtree(draft)
        else:
            draft.unlink(missing_ok=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write a text file as UTF-8; a lone surrogate, which UTF-8 cannot hold, becomes its escape sequence.

    Args:
        path: File to write; it is there as a whole or not at all.
        text: Text with its line breaks.
    """
    with atomic_path(path) as draft:
        draft.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as an indented JSON file.

    Args:
        path: File to write.
        value: Value of JSON types.

    Raises:
        ValueError: The value holds NaN or infinity, which JSON does not have.
    """
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def check_not_overwriting(out: Path, sources: Iterable[str | Path]) -> None:
    """Check that a file can be written at the path of an output file, and that nothing is lost that a command reads.

    Args:
        out: File that a command will write.
        sources: Files that the command reads, and its response cache, which may not exist yet; other sources, such as
            Hub ids, are ignored.

    Raises:
        ConfigError: The output file is a folder, a device or a pipe, one of the sources, or any response cache.
    """
    _check_no_device(out)
    if out.is_dir():
        raise ConfigError(f"{out}: is a folder, and a file is to be written there; give another path")
    for source in filter(None, map(str, sources)):
        exist = out.exists() and Path(source).exists()
        if out.samefile(source) if exist else out.resolve() == Path(source).resolve():
            raise ConfigError(f"{out}: is one of the files to read; give another path")
    if out.exists() and _is_database(out):
        raise ConfigError(f"{out}: is a response cache, and its responses would be lost; give another path")


def check_jsonl_name(out: Path) -> None:
    """Check that the name of a file that will hold JSONL is not that of another format: readers go by the name.

    Args:
        out: File that a command will write.

    Raises:
        ConfigError: The name ends in .json or .parquet.
    """
    if out.suffix in (".json", ".parquet"):
        raise ConfigError(f"{out}: must end in .jsonl, since each line will be a row; rename it")


def _is_database(path: Path) -> bool:
    """Return whether a file is an SQLite database, as response caches are."""
    with path.open("rb") as file:
        return file.read(len(_SQLITE)) == _SQLITE


def _check_no_device(path: Path) -> None:
    """Raise ConfigError if something is at a path that is neither a file nor a folder; a rename would replace it."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ConfigError(f"{path}: is a device or a pipe, which would be replaced by a file; give the path of a file")
