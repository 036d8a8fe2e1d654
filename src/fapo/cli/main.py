"""Entry point of the command line: runs a command, and turns its errors into messages and exit codes."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from fapo.cli import (  # noqa: F401 - registers the commands
    bench,
    cache,
    check_judge,
    compare,
    configs,
    critic,
    demo,
    eval,
    filter_problems,
    judge,
    plan,
    report,
    select,
    serve,
    template,
    train,
)
from fapo.cli.app import app, console
from fapo.errors import FapoError


def main() -> None:
    """Run the command line and exit.

    The exit code is 0 for success, 1 for a bug, 2 for an error of the user, 3 if most verdicts are missing
    (`fapo.cli.verdicts`), and 130 for Ctrl-C.

    An error of the user is a `FapoError`, a missing package from `EXTRAS`, or a refusal of the operating system from
    `REFUSALS`. Its message is printed without a traceback. Every other exception is a bug, and Python prints its
    traceback.
    """
    warnings.simplefilter("ignore", FutureWarning)  # from libraries; users can do nothing about them
    try:
        app.cli(prog="fapo", description="Flawed-aware policy optimization.")
        sys.stdout.flush()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # a second Ctrl-C exits at once
        console.print(_interrupted(sys.argv[1:]), style="yellow", highlight=False, markup=False, soft_wrap=True)
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
        extra = EXTRAS[missing]
        _fail(f"this needs {missing}: pip install 'fapo[{extra}]', or in a checkout: pip install -e '.[{extra}]'")
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        _fail(f"{error}; {REFUSALS[error.errno]}")


def _interrupted(arguments: Sequence[str]) -> str:
    """Return how the command that was interrupted continues."""
    command = arguments[0] if arguments else ""
    if command == "train":
        repeated = shlex.join(["fapo", *arguments, *(() if "--resume" in arguments else ("--resume",))])
        return f"interrupted; continue from the last checkpoint with: {repeated}"
    if command in CONTINUING:
        return "interrupted; the same command continues: what was answered is in its cache"
    return "interrupted"


def _reader_gone() -> bool:
    """Return whether the reader of standard output has closed it, as `head` does."""
    from select import POLLERR, POLLHUP, poll

    output = poll()
    output.register(sys.stdout.fileno(), 0)
    return any(event & (POLLERR | POLLHUP) for _, event in output.poll(0))


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
    console.print(f"fapo: {message}", style="red", highlight=False, markup=False, soft_wrap=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
