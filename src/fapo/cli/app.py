"""The command-line application and the option types that several commands share."""

from __future__ import annotations

from rich.console import Console
from tyro.conf import Positional, UseAppendAction
from tyro.extras import SubcommandApp

app = SubcommandApp()
console = Console(stderr=True)

Several = UseAppendAction[tuple[str, ...]]
Overrides = Positional[tuple[str, ...]]
Many = UseAppendAction[tuple[tuple[str, ...], ...]]
"""An option with one or more values that may come several times."""
