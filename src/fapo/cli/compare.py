"""`fapo compare`: policies on the same questions."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from fapo.cli.app import app, print_result
from fapo.config.options import AsJson


@app.command("compare")
def compare(tables: Positional[tuple[Path, ...]], /, *, as_json: AsJson = False) -> None:
    """Compare policies on the same questions, from the tables of questions that `fapo eval` has written.

    Args:
        tables: Files of --out, at least two; the first one is the baseline of the differences.
        as_json: Print JSON instead of a table.
    """
    from fapo.evaluation.policy import compare as comparison

    found = comparison.compare(tables)
    print_result(comparison.as_table(found), comparison.as_json(found), as_json)
