"""The command-line application, and the types of options that several commands have."""

from __future__ import annotations

from typing import Annotated, TypeVar

from rich.console import Console
from tyro.conf import OmitArgPrefixes, Positional, UseAppendAction, arg
from tyro.extras import SubcommandApp

app = SubcommandApp()
console = Console(stderr=True)

T = TypeVar("T")
Options = Annotated[OmitArgPrefixes[T], arg(name="")]
"""A dataclass; each of its fields is an option of the command."""
Several = UseAppendAction[tuple[str, ...]]
"""An option that may be given several times."""
Overrides = Positional[tuple[str, ...]]
"""Overrides of a config, such as reward.penalty=0.5."""
AsJson = Annotated[bool, arg(name="json", help="Print JSON instead of a table.")]
Quiet = Annotated[bool, arg(help="Show no progress bar.")]
