"""`fapo select`: the checkpoint of a GenRM to use."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from fapo.cli.app import Several, app, console


@app.command
def select(run: Positional[Path], /, *, max_tokens: float | None = None, sets: Several = ()) -> None:
    """Choose the checkpoint of a GenRM's run: the best F1 in validation, with critiques that are short enough.

    Prints the folder of the chosen weights; before that, as a message, a row for each validation.

    Args:
        run: Run folder.
        max_tokens: Token budget: how long its critiques may be on average.
        sets: Validation set that counts; may be given several times. By default all, averaged.
    """
    from fapo.training.select_checkpoint import as_table, better_lost_step, candidates, choose

    found = candidates(run, sets)
    chosen = choose(found, max_tokens)
    console.print(as_table(found, chosen))
    if note := better_lost_step(found, chosen, max_tokens):
        console.print(note, highlight=False, soft_wrap=True)
    print(chosen.folder)
