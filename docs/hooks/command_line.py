"""MkDocs hook: add the help of every command to reference/cli.md when the site is built."""

from __future__ import annotations

import contextlib
import io
import os
import re
from typing import Any
from unittest.mock import patch

import fapo.cli.main  # noqa: F401 - registers the commands
from fapo.cli.app import app


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return the text of a page; that of reference/cli.md with the help of every command at its end."""
    return f"{markdown}\n{commands()}" if page.file.src_uri == "reference/cli.md" else markdown


def commands() -> str:
    """Return a section with the help of each command."""
    names = re.search(r"\{([\w,-]+)\}", help_of())
    assert names, "the help begins with the list of commands"
    return "\n".join(f"\n## fapo {name}\n\n```text\n{help_of(name)}```" for name in names[1].split(","))


def help_of(*command: str) -> str:
    """Return what `fapo COMMAND --help` prints in a terminal of 80 columns."""
    shown = io.StringIO()
    with patch.dict(os.environ, COLUMNS="80"), contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        app.cli(prog="fapo", description="Flawed-aware policy optimization.", args=[*command, "--help"])
    return "".join(f"{line.rstrip()}\n" for line in shown.getvalue().strip().splitlines())
