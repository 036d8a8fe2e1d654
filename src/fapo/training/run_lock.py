"""Lock a run folder for one process, and report a full disk."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from fapo.errors import ConfigError

FULL = 1 << 20
"""Bytes; with less room than this a disk is full."""
_taken: dict[Path, int] = {}
"""Run folders of this process, each with its open descriptor: the system gives the lock back when the process ends."""


def lock_folder(folder: Path) -> None:
    """Make the folder this process's own, so that a run resumed while it still runs does not write between its rows."""
    if os.name != "posix" or folder.resolve() in _taken:
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ConfigError(f"{folder}: another process is training here; wait for it, or choose another name") from None
    except OSError:  # a file system without locks
        os.close(descriptor)
        return
    _taken[folder.resolve()] = descriptor


@contextlib.contextmanager
def disk_full_as_oserror(folder: Path) -> Iterator[None]:
    """Torch and safetensors have words of their own for a full disk; they become the system's error."""
    try:
        yield
    except Exception as error:
        torn = "inline_container" in str(error) and shutil.disk_usage(folder).free < FULL
        if isinstance(error, OSError) or not (torn or "No space left" in str(error)):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
