"""Notes on the verdicts of a judge, which several commands print, and their exit code."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from fapo.cli.app import console

if TYPE_CHECKING:
    from fapo.judge.verdict_counts import VerdictCounts

MOSTLY_MISSING = 3
"""Exit code of a command that did its work without a verdict on most solutions."""


def print_notes(counts: VerdictCounts) -> None:
    """Print why verdicts are missing, with an example and what to do; exit with 3 if most of them are missing."""
    style = "red" if counts.mostly_missing else "yellow"
    for note in counts.notes():
        console.line(f"- {note}", style=style)
    if counts.mostly_missing:
        console.line(
            "fapo: most judgements have no verdict, so the numbers say little about the solutions", style="red"
        )
        sys.exit(MOSTLY_MISSING)
