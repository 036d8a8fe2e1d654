"""Entry point of the command line: runs a command, and turns its errors into messages and exit codes."""

from __future__ import annotations

import ast
import errno
import os
import re
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from importlib import import_module
from io import TextIOWrapper
from operator import or_
from pathlib import Path
from typing import Annotated, Any, NamedTuple, NoReturn

import tyro
from tyro.conf import subcommand

from fapo.cli.app import app, console
from fapo.cli.declared_defaults import answer_without_typeguard
from fapo.errors import FapoError, install


def main() -> None:
    """Run the command line and exit.

    The exit code is 0 for success, 1 for a bug, 2 for an error of the user, 3 if most verdicts are missing
    (`fapo.cli.verdicts`), and 130 for Ctrl-C.

    An error of the user is a `FapoError`, a missing package from `EXTRAS`, or a refusal of the operating system from
    `REFUSALS`. Its message is printed without a traceback. Every other exception is a bug, and Python prints its
    traceback.
    """
    warnings.simplefilter("ignore", FutureWarning)  # from libraries; users can do nothing about them
    if isinstance(sys.stdout, TextIOWrapper) and not sys.stdout.encoding.lower().startswith("utf"):
        sys.stdout.reconfigure(errors="replace")  # in a locale without a character "?" stands in its place
    try:
        run(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        try:
            signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # a second Ctrl-C exits at once
        except KeyboardInterrupt:  # it has come already
            os._exit(130)
        console.line(_interrupted(sys.argv[1:]), style="yellow")
        sys.exit(130)
    except BrokenPipeError:
        if not _reader_gone():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it at exit
        sys.exit(1)
    except FapoError as error:
        _fail(str(error))
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRAS:
            raise
        _fail(f"this needs {missing}: {install(EXTRAS[missing])}")
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        _fail(f"{error}; {REFUSALS[error.errno]}")


class Command(NamedTuple):
    """A command in the source of this package."""

    module: str
    """Module that registers it."""
    summary: str
    """First paragraph of its help."""


@cache
def commands() -> dict[str, Command]:
    """Return the commands by name; their modules are read, not imported, since most of them are not needed."""
    found = {}
    for file in sorted(Path(__file__).parent.glob("*.py")):
        text = file.read_text(encoding="utf-8")
        functions = [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)] if MARK in text else []
        for function in functions:
            summary = " ".join((ast.get_docstring(function) or "").partition("\n\n")[0].split())
            for mark in function.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark).startswith(MARK[1:]):
                    found[ast.literal_eval(mark.args[0])] = Command(f"fapo.cli.{file.stem}", summary)
    return dict(sorted(found.items()))


def import_command(name: str) -> Callable[..., Any] | None:
    """Import the module of a command, and return its function; None if there is no such command."""
    file = Path(__file__).with_name(f"{name.replace('-', '_')}.py") if IS_NAME(name) else None
    if file and file.is_file() and MARK in file.read_text(encoding="utf-8"):  # almost every command has its own module
        import_module(f"fapo.cli.{file.stem}")
    if name not in app.commands and name in commands():
        import_module(commands()[name].module)
    return app.commands.get(name)


def import_commands() -> dict[str, Callable[..., Any]]:
    """Import the modules of all commands, and return the functions by the names of the commands."""
    for module in {found.module for found in commands().values()}:
        import_module(module)
    return dict(sorted(app.commands.items()))


def run(arguments: Sequence[str]) -> None:
    """Run a command with its arguments, or print its help.

    Args:
        arguments: Words after `fapo`.

    Raises:
        SystemExit: The help was asked for, or the arguments are not those of a command; what is wrong has been printed.
    """
    answer_without_typeguard()
    name = arguments[0].replace("_", "-") if arguments else ""
    if function := import_command(name):
        tyro.cli(function, prog=f"fapo {name}", args=arguments[1:])
        return

    @dataclass
    class Unloaded:
        """Stand-in for a command that is not imported, because only its name and its summary are shown."""

    listed = [Annotated[Unloaded, subcommand(known, description=found.summary)] for known, found in commands().items()]
    one_of: Any = reduce(or_, listed)
    tyro.cli(one_of, prog="fapo", description="Flawed-aware policy optimization.", args=arguments)


def _interrupted(arguments: Sequence[str]) -> str:
    """Return how the command that was interrupted continues."""
    command = arguments[0] if arguments else ""
    if command == "train":
        repeated = shlex.join(["fapo", *arguments, *(() if "--resume" in arguments else ("--resume",))])
        return f"interrupted; continue from the last checkpoint with: {repeated}"
    keeps = command != "bench" or any(word.startswith("--judge") for word in arguments)
    if command in CONTINUING and keeps:
        return "interrupted; the same command continues: what was answered is in its cache"
    return "interrupted"


def _reader_gone() -> bool:
    """Return whether the reader of standard output has closed it, as `head` does."""
    from select import POLLERR, POLLHUP, poll

    output = poll()
    output.register(sys.stdout.fileno(), 0)
    return any(event & (POLLERR | POLLHUP) for _, event in output.poll(0))


IS_NAME = re.compile(r"[a-z-]+").fullmatch
MARK = "@app.command("
"""Text in a module that registers commands."""
EXTRAS = {
    **dict.fromkeys(("torch", "transformers", "trl", "datasets", "accelerate", "pyarrow"), "train"),
    **dict.fromkeys(("matplotlib", "scipy", "jinja2"), "report"),
    **dict.fromkeys(("fastapi", "uvicorn", "prometheus_client"), "serve"),
    **dict.fromkeys(("verl", "ray", "tensordict"), "verl"),
}
"""Packages that only some commands need -> the extra of fapo that installs them."""
CONTINUING = ("judge", "bench", "eval", "critic", "critiques", "demo")
"""Commands that continue where they were interrupted when they are started again."""
REFUSALS = {
    errno.ENOSPC: "free some space, then start again",
    errno.EDQUOT: "free some space of your quota, then start again",
    errno.EROFS: "the file system is read-only; choose another path",
    errno.EACCES: "change the permissions, or choose another path",
    errno.EPERM: "change the permissions, or choose another path",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`), or lower the concurrency",
    errno.EEXIST: "a folder is needed there; choose another path",
    errno.EISDIR: "a file is needed there; choose another path",
    errno.ENOTDIR: "a part of the path is a file; choose another path",
}
"""Error numbers of the operating system that mean a mistake of the user at any path, each with its remedy.

A missing file (ENOENT) is not among them. Code that opens a path of the user raises `DataError` or `ConfigError` if the
file is missing, with path and remedy. A missing file of fapo itself is a bug.
"""


def _fail(message: str) -> NoReturn:
    """Print the message of an error of the user and exit with status 2."""
    console.line(f"fapo: {message}", style="red")
    sys.exit(2)


if __name__ == "__main__":
    main()
