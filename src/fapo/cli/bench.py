"""`fapo bench`: score a judge on labelled solutions."""

from __future__ import annotations

import json

from fapo.cli.app import AsJson, Options, Quiet, app
from fapo.cli.progress import bar_by_name, progress_bars
from fapo.cli.verdicts import print_notes
from fapo.evaluation.judge_benchmarks.settings import BenchSettings


@app.command
def bench(*, settings: Options[BenchSettings], as_json: AsJson = False, quiet: Quiet = False) -> None:
    """Score a judge, or a file of its predictions, on labelled solutions as in ProcessBench.

    The judge may also be flag-all or flag-none, which read nothing.
    """
    from rich.console import Console

    from fapo.evaluation.judge_benchmarks import output
    from fapo.evaluation.judge_benchmarks.run import run_benchmark

    with progress_bars(disable=quiet or not settings.judge or bool(settings.rule)) as bars:
        score, context = run_benchmark(settings, bar_by_name(bars))
    if as_json:
        print(json.dumps(output.as_json(score, context), indent=2, allow_nan=False))
    else:
        Console().print(output.as_table(score, context))
    if not settings.rule:
        print_notes(output.verdict_counts(context))
