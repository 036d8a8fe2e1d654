"""`fapo eval`: measure a policy."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from fapo.cli.app import AsJson, Options, Quiet, app, console
from fapo.cli.progress import bar_by_name, progress_bars
from fapo.cli.verdicts import print_notes
from fapo.evaluation.policy.settings import EvalSettings

if TYPE_CHECKING:
    from fapo.inference.usage import Usage


@app.command(name="eval")
def evaluate(*, settings: Options[EvalSettings], as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Evaluate a policy: sample, check final answers, and measure by a judge how many correct ones are flawed.

    The same command continues an evaluation that was interrupted, and asks again for what failed.
    """
    from rich.console import Console

    from fapo.evaluation.policy.output import as_table, usage_lines, write
    from fapo.evaluation.policy.run import evaluate, verdict_counts

    usage: dict[str, Usage] = {}
    with progress_bars(disable=quiet) as bars:
        answered = evaluate(settings, bar_by_name(bars), usage)
    found = write(settings, answered, usage)
    if as_json:
        print(json.dumps(found, indent=2, allow_nan=False))
    else:
        Console().print(as_table(settings, answered))
    summary = settings.out.with_suffix(".json")
    for line in usage_lines(settings, usage):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"questions: {settings.out}, summary: {summary}", highlight=False, soft_wrap=True)
    print_notes(verdict_counts(answered))
