"""Notes on the verdicts of a judge, which several commands print, and their exit code."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from fapo.cli.app import console

if TYPE_CHECKING:
    from fapo.judge.verdict_counts import VerdictCounts

MOSTLY_MISSING = 3
"""Exit code of a command that did its work without a verdict on most solutions."""


def print_notes(counts: VerdictCounts, gold: VerdictCounts | None = None) -> None:
    """Print why verdicts are missing, with an example and what to do; exit with 3 if most of them are missing.

    Args:
        counts: Verdicts of the judge.
        gold: Verdicts of the gold judge, if there is one.
    """
    named = {"": counts} | ({"gold judge: ": gold} if gold else {})
    for name, found in named.items():
        for note in found.notes():
            console.line(f"- {name}{note}", style="red" if found.mostly_missing else "yellow")
    if any(found.mostly_missing for found in named.values()):
        console.line(
            "fapo: most judgements have no verdict, so the numbers say little about the solutions", style="red"
        )
        sys.exit(MOSTLY_MISSING)
