"""Where the files lie that tests read: the repository, and data sets that are not part of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
"""Folder of the repository."""
SOURCE = ROOT / "src"
"""Folder that has to be on PYTHONPATH of a process in which a test starts fapo."""
VARIABLE = "FAPO_TEST_DATA"
"""Environment variable with the folder of the data sets that some tests read."""


def shared_data(name: str) -> Path:
    """Return the path of a file below the folder FAPO_TEST_DATA; skip the test where there is no such file."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"needs {name}: set {VARIABLE} to the folder that holds it")
    path = Path(folder) / name
    if not path.is_file():
        pytest.skip(f"needs {name}, which is not in {VARIABLE}={folder}")
    return path
