"""`fapo bench`: score a judge on labelled solutions."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Literal

from rich.console import Console
from tyro.conf import OmitArgPrefixes, Positional, arg

from fapo.cli.app import Many, app
from fapo.cli.judge_options import JudgeOptions
from fapo.cli.progress import bar_by_name, progress_bars

_BENCH_JUDGE = JudgeOptions(max_tokens=4096, concurrency=32)


@app.command
def bench(
    benchmark: Positional[Literal["flawed-positive", "process"]],
    /,
    *,
    data: Many = (),
    predictions: Path | None = None,
    threshold: float = 0.5,
    invalid: Literal["wrong", "flagged"] = "wrong",
    asked: OmitArgPrefixes[JudgeOptions] = _BENCH_JUDGE,
    limit: int | None = None,
    out: Path | None = None,
    as_json: Annotated[bool, arg(name="json")] = False,
) -> None:
    """Score a judge, or answers on file, on labelled solutions: rows as in ProcessBench.

    The judge may also be flag-all or flag-none, which read nothing.

    Args:
        benchmark: flawed-positive: finding the flawed among solutions with a right answer (precision, recall, F1).
            process: finding the first wrong step, by subset.
        data: JSONL or Parquet files, Hugging Face ids, or miniature:critic-test.
        predictions: Score this file of rows {id, error_step, status} or {id, scores} instead of asking a judge.
        threshold: A step with a score below is wrong.
        invalid: What no verdict counts as in flawed-positive; flagged is the public script's convention.
        limit: Only so many rows of each source, a fixed random choice.
        out: Write the answers here, in the form --predictions reads. Every critique is in the cache beside it as soon
            as it is there; started again, only what is not there is asked for.
        as_json: Print JSON instead of a table.
    """
    from fapo.evaluation.judge_benchmarks import output
    from fapo.evaluation.judge_benchmarks.run import run_benchmark
    from fapo.evaluation.judge_benchmarks.settings import BenchSettings

    settings = BenchSettings(
        benchmark=benchmark,
        data=sum(data, ()),
        predictions=predictions,
        threshold=threshold,
        invalid=invalid,
        limit=limit,
        out=out,
        **{field.name: getattr(asked, field.name) for field in fields(asked)},
    )
    with progress_bars(disable=not settings.judge or bool(settings.rule)) as bars:
        score, context = run_benchmark(settings, bar_by_name(bars))
    if as_json:
        print(json.dumps(output.as_json(score, context), indent=2, allow_nan=False))
    else:
        Console().print(output.as_table(score, context))
