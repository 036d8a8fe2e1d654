"""Call the command line in the process of the test."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from fapo.cli import main as cli


def fapo(monkeypatch: pytest.MonkeyPatch, *arguments: Any, columns: int = 400) -> int:
    """Run `fapo ARGUMENTS` on a terminal of the given width and return the exit code."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "argv", ["fapo", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0
