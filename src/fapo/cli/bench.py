"""`fapo bench`: score a judge on labelled solutions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.console import Console
from tyro.conf import OmitArgPrefixes, Positional, arg

from fapo.cli.app import Many, app
from fapo.cli.judge_options import JudgeOptions
from fapo.cli.progress import progress_bars
from fapo.errors import ConfigError

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
    from fapo.data.problems import check_not_overwriting
    from fapo.evaluation.judge_benchmarks import output, run
    from fapo.evaluation.judge_benchmarks.predictions import of_rows, read_predictions, write_predictions
    from fapo.evaluation.judge_benchmarks.rows import load_rows
    from fapo.evaluation.judge_benchmarks.score import score_flawed_positive, score_process

    sources = sum(data, ())
    if (predictions is None) == (not asked.judge):
        raise ConfigError("give either --predictions FILE or --judge (URL, local:PATH, flag-all, flag-none)")
    if predictions and out:
        raise ConfigError("--out is for answers of a --judge; --predictions are on file already")
    if out:
        check_not_overwriting(out, sources)
    process = benchmark == "process"
    rows = load_rows(benchmark, sources, limit)
    if predictions:
        found = read_predictions(predictions, rows.num_steps, threshold=threshold, located=process)
        used = threshold if any(prediction.from_scores for prediction in found.values()) else None
        context = output.Context(sources, str(predictions), of_rows(rows.counting, found), invalid, used)
    else:
        rule = len(asked.judge) == 1 and asked.judge[0] in run.RULES
        who = asked.judge[0] if rule else asked.config(out)
        with progress_bars() as bars:
            bar = bars.add_task(f"bench {benchmark}", total=len(rows.counting), note="")
            verdicts = run.run_judge(
                benchmark, rows, who, fresh=asked.no_cache, progress=lambda done: bars.update(bar, completed=done)
            )
        if out:
            write_predictions(out, rows.counting, verdicts, run.judge_name(who))
        untold = 0 if rule else sum(not row.problem.reference for row in rows.counting)
        context = output.Context(sources, run.judge_name(who), verdicts, invalid, num_without_reference=untold)
    if process:
        score: Any = score_process(rows.counting, rows.subsets, context.verdicts)
    else:
        score = score_flawed_positive(rows.counting, context.verdicts, invalid)
    if as_json:
        print(json.dumps(output.as_json(score, context), indent=2, allow_nan=False))
    else:
        Console().print(output.as_table(score, context))
