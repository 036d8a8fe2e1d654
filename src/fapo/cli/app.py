"""The command-line application and its console."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from tyro.conf import UseAppendAction

if TYPE_CHECKING:
    from rich.console import Console

Command = TypeVar("Command", bound=Callable[..., Any])

MIN_WIDTH = 80
"""Width of a terminal, in characters, at which no table cuts a number."""


class App:
    """Registry of the commands; a command is in it once its module has been imported."""

    def __init__(self) -> None:
        """Start without commands."""
        self.commands: dict[str, Callable[..., Any]] = {}
        """Functions by the name of their command."""

    def command(self, name: str) -> Callable[[Command], Command]:
        """Return a decorator that registers a function as the command with this name."""

        def register(function: Command) -> Command:
            self.commands[name] = function
            return function

        return register


app = App()


class LazyConsole:
    """Console of standard error. It imports rich when something is printed, because rich makes `fapo --help` slower."""

    @cached_property
    def rich(self) -> Console:
        """The console itself."""
        from rich.console import Console

        return Console(stderr=True)

    @property
    def is_terminal(self) -> bool:
        """Whether the output is a terminal."""
        return self.rich.is_terminal

    def line(self, text: str, style: str | None = None) -> None:
        """Print a line as it is, in one style: brackets in it are no markup, and a long line is not broken."""
        self.rich.print(text, style=style, highlight=False, markup=False, soft_wrap=True)


console = LazyConsole()
"""Console for messages."""

Several = UseAppendAction[tuple[str, ...]]
"""An option that may be given several times."""


def table_console(*, stderr: bool = False) -> Console:
    """Return a console for tables, MIN_WIDTH wide on a narrower terminal, which breaks lines where a table cuts cells.

    Args:
        stderr: Whether it prints to standard error, in place of standard output.

    Returns:
        The console.
    """
    from rich.console import Console

    found = Console(stderr=stderr)
    found.width = max(found.width, MIN_WIDTH)
    return found


def print_result(table: Any, values: Mapping[str, Any], as_json: bool) -> None:
    """Print a result on standard output.

    Args:
        table: Table or text for the terminal.
        values: The same as JSON, without numbers that are not finite.
        as_json: Whether to print `values` in place of the table.
    """
    if as_json:
        print_json(values)
    else:
        table_console().print(table)


def print_json(values: Mapping[str, Any]) -> None:
    """Print a result as JSON on standard output."""
    print(json.dumps(values, indent=2, allow_nan=False))
