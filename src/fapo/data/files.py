"""Write files and folders that exist only when they are complete."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def atomic_path(path: str | Path, draft: str | Path | None = None) -> Iterator[Path]:
    """Yield a draft beside `path` to write to; the draft becomes `path` when the block ends.

    The block may write a file or a folder. If it raises, or is interrupted, the draft is deleted and an older file or
    folder at `path` stays as it was. Missing parent folders are created.

    Args:
        path: File or folder to write.
        draft: Path of the draft, for writers that must know it; it must be on the same file system as `path`. By
            default its name holds the process id, so that two processes may write the same file.
    """
    path = Path(path)
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


def write_json(path: str | Path, value: Any) -> None:
    """Write a value as an indented JSON file. NaN and infinity are refused with a ValueError: JSON has neither."""
    text = json.dumps(value, indent=1, allow_nan=False)
    with atomic_path(path) as draft:
        draft.write_text(text + "\n", encoding="utf-8")
