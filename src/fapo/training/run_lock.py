"""Lock of a run folder, and the error of a full disk."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from fapo.errors import ConfigError

FULL_BELOW = 1 << 20
"""Free bytes below which a disk counts as full."""
_locked: dict[Path, int] = {}
"""Open descriptors of the folders that this process has locked; the system releases a lock when the process ends."""


def lock_folder(folder: Path) -> None:
    """Lock a folder for this process, so that two processes never write to the same run.

    The lock is released when the process ends. A second call in the same process has no effect, and neither has a call
    on a file system without locks.

    Args:
        folder: Existing folder.

    Raises:
        ConfigError: Another process has locked the folder.
    """
    if os.name != "posix" or folder.resolve() in _locked:
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
    _locked[folder.resolve()] = descriptor


@contextlib.contextmanager
def disk_full_as_oserror(folder: Path) -> Iterator[None]:
    """Turn the errors of torch and safetensors about a full disk into OSError (ENOSPC).

    Args:
        folder: Folder that is written to.

    Raises:
        OSError: The disk is full.
    """
    try:
        yield
    except Exception as error:
        torn = "inline_container" in str(error) and shutil.disk_usage(folder).free < FULL_BELOW
        if isinstance(error, OSError) or not (torn or "No space left" in str(error)):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
