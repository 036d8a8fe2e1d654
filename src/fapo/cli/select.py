"""`fapo select`: the best checkpoint of a GenRM."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from fapo.cli.app import Several, app, console, table_console


@app.command("select")
def select(run: Positional[Path], /, *, max_tokens: float | None = None, sets: Several = ()) -> None:
    """Choose the checkpoint of a GenRM with the best F1 in validation among those with short enough critiques.

    The command prints the folder of its weights on standard output, and a table of all validations on standard error.

    Args:
        run: Run folder.
        max_tokens: Maximum mean length of a critique in tokens; the default is no limit.
        sets: Validation set that counts, may be given several times; the default is the mean over all sets.
    """
    from fapo.training.select_checkpoint import as_table, better_lost_step, candidates, choose

    found = candidates(run, sets)
    chosen = choose(found, max_tokens)
    table_console(stderr=True).print(as_table(found, chosen))
    if note := better_lost_step(found, chosen, max_tokens):
        console.line(note)
    print(chosen.folder)
