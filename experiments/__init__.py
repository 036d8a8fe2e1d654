"""Studies of this project: python -m experiments.NAME."""

from __future__ import annotations

import sys
from types import TracebackType

from fapo.errors import FapoError


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an error of the user as one line, as the command line does; every other one with its traceback."""
    if isinstance(error, FapoError):
        print(f"experiments: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _show  # each study is a program, and this package is what they have in common
