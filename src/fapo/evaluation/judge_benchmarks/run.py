"""Run a benchmark: load the rows, get verdicts from a judge or a file, and score the verdicts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fapo.config.schema import ModelJudge, ServedJudge
from fapo.data.files import check_not_overwriting
from fapo.errors import ConfigError
from fapo.evaluation.judge_benchmarks.output import Context
from fapo.evaluation.judge_benchmarks.predictions import read_predictions, verdicts_of, write_predictions
from fapo.evaluation.judge_benchmarks.rows import Rows, load_rows
from fapo.evaluation.judge_benchmarks.score import (
    FlawedPositiveScore,
    ProcessScore,
    score_flawed_positive,
    score_process,
)
from fapo.evaluation.judge_benchmarks.settings import RULES, BenchSettings
from fapo.evaluation.judge_settings import judge_name
from fapo.inference.concurrency import run_batches
from fapo.inference.usage import Usage
from fapo.judge.circuit_breaker import CircuitBreaker, repeat_command
from fapo.judge.from_config import open_judge
from fapo.judge.template import load_template
from fapo.types import LabelledSolution, Progress, Verdict

LOCAL_BATCH = 32
"""Number of rows that a model in this process judges before their critiques are written to the cache."""


def run_benchmark(
    settings: BenchSettings, progress: Progress = lambda *_: None
) -> tuple[FlawedPositiveScore | ProcessScore, Context]:
    """Score a judge, or predictions from a file, on a benchmark.

    Args:
        settings: Benchmark, its data, and what is scored.
        progress: Callback for the number of rows that are judged.

    Returns:
        The score, and the context that its output needs.

    Raises:
        ConfigError: The judge cannot be used for this benchmark, or `out` is one of the data files.
        DataError: The data or the predictions cannot be read.
        JudgeDownError: The judge fails for too many rows.
    """
    if settings.out:
        check_not_overwriting(settings.out, settings.data)
    rule = load_template(settings.template, settings.steps).steps
    rows = load_rows(settings.benchmark, settings.data, settings.limit, rule)
    context = _from_predictions(settings, rows) if settings.predictions else _from_judge(settings, rows, progress)
    if settings.benchmark == "process":
        return score_process(rows.counting, rows.subsets, context.verdicts), context
    return score_flawed_positive(rows.counting, context.verdicts, settings.invalid), context


def _from_predictions(settings: BenchSettings, rows: Rows) -> Context:
    """Read verdicts from a file of predictions."""
    assert settings.predictions
    process = settings.benchmark == "process"
    found = read_predictions(settings.predictions, rows.num_steps, threshold=settings.threshold, with_step=process)
    threshold = settings.threshold if any(prediction.from_scores for prediction in found.values()) else None
    verdicts = verdicts_of(rows.counting, found)
    return Context(settings.data, str(settings.predictions), verdicts, settings.invalid, threshold)


def _from_judge(settings: BenchSettings, rows: Rows, progress: Progress) -> Context:
    """Judge the rows, and write the answers to `out`."""
    if settings.rule:
        name, usage, verdicts = settings.rule, Usage(), [Verdict.from_step(RULES[settings.rule])] * len(rows.counting)
    else:
        judge = settings.judge_config(settings.out)
        name = judge_name(judge)
        verdicts, usage = judge_rows(settings, rows, judge, progress)
    if settings.out:
        write_predictions(settings.out, rows.counting, verdicts, name)
    without = 0 if settings.rule else sum(not row.problem.reference for row in rows.counting)
    return Context(
        settings.data,
        name,
        verdicts,
        settings.invalid,
        num_without_reference=without,
        usage=usage,
        prices=settings.prices,
    )


def judge_rows(
    settings: BenchSettings, rows: Rows, judge: ModelJudge, progress: Progress
) -> tuple[list[Verdict], Usage]:
    """Judge the rows of a benchmark; critiques that the cache holds are not requested again.

    Args:
        settings: Benchmark; `no_cache` requests all critiques again.
        rows: Rows of the benchmark.
        judge: Judge.
        progress: Callback for the number of rows that are judged.

    Returns:
        One verdict for each row that is scored, in order; and the tokens of the judge.

    Raises:
        ConfigError: The benchmark needs steps, and the template asks for yes or no.
        JudgeDownError: The judge fails for too many rows.
    """
    if settings.benchmark == "process" and load_template(judge.template).kind == "yes_no":
        raise ConfigError(
            f"{judge_name(judge)}: asks yes or no, so it names no step, which `process` needs; use locate"
        )
    verdicts: dict[str, Verdict] = {}
    breaker = CircuitBreaker(remedy=repeat_command(judge.cache), num_expected=len(rows.counting))

    async def run() -> Usage:
        async with open_judge(judge, use_cache=not settings.no_cache) as genrm:

            async def ask(batch: Sequence[LabelledSolution]) -> list[str]:
                found = await genrm.judge_steps([(row.problem, row.steps) for row in batch])
                verdicts.update((row.problem.id, verdict) for row, verdict in zip(batch, found, strict=True))
                return [verdict.reason if verdict.status == "failed" else "" for verdict in found]

            await run_batches(
                rows.counting,
                ask,
                batch_size=1 if isinstance(judge, ServedJudge) else LOCAL_BATCH,
                concurrency=judge.concurrency if isinstance(judge, ServedJudge) else 1,
                record=breaker.record,
                progress=lambda done: progress(
                    f"bench {settings.benchmark}", done, len(rows.counting), genrm.progress_metrics
                ),
            )
            return genrm.usage.total

    usage = asyncio.run(run())
    return [verdicts[row.problem.id] for row in rows.counting], usage
