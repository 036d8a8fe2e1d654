"""Run a benchmark: load the rows, get verdicts from a judge or a file, and score the verdicts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fapo.config.schema import CascadeJudge, CritiqueJudge, ModelJudge, PRMJudge
from fapo.data.files import check_jsonl_name, check_not_overwriting
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
from fapo.evaluation.judge_benchmarks.threshold import best_threshold, halves, with_threshold
from fapo.evaluation.judge_settings import judge_name
from fapo.inference.concurrency import run_batches
from fapo.inference.usage import Usage
from fapo.judge.circuit_breaker import CircuitBreaker, repeat_command
from fapo.judge.from_config import open_judge
from fapo.judge.template import load_template
from fapo.types import LabelledSolution, Progress, Verdict

DEFAULT_THRESHOLD = 0.5
"""Score below which a step is wrong, where none is set."""
LOCAL_BATCH = 32
"""Number of rows that a model in this process judges before their critiques are written to the cache."""


def run_benchmark(settings: BenchSettings, progress: Progress = lambda *_: None) -> tuple[Rows, list[Context]]:
    """Judge the rows of a benchmark, or read predictions from files.

    Args:
        settings: Benchmark, its data, and what is scored.
        progress: Callback for the number of rows that are judged.

    Returns:
        The rows, and the answers to them: of one judge, of each of several prompts, or of each file.

    Raises:
        ConfigError: The judge cannot be used for this benchmark, or `out` is one of the data files or has the name of
            another format.
        DataError: The data or the predictions cannot be read.
        JudgeDownError: The judge fails for too many rows.
    """
    names = settings.rules or settings.templates
    for file in filter(None, (settings.table, settings.plot, *map(settings.out_of, names))):
        check_not_overwriting(file, [*settings.data, *settings.predictions, settings.cache_beside(settings.out)])
    if settings.out:
        check_jsonl_name(settings.out)
    rules = {load_template(template, settings.steps).steps for template in settings.templates}
    if len(rules) > 1:
        raise ConfigError("the templates split solutions into steps by different rules; set one of them by --steps")
    rows = load_rows(settings.benchmark, settings.data, settings.limit, rules.pop())
    contexts = _contexts(settings, rows, progress)
    if not settings.choose_threshold:
        return rows, contexts
    left, context = _with_chosen_threshold(settings, rows, contexts[0])
    return left, [context]


def _contexts(settings: BenchSettings, rows: Rows, progress: Progress) -> list[Context]:
    """Return the answers of one judge, of each of several prompts, or of each file of predictions."""
    if settings.predictions:
        stems = [file.stem for file in settings.predictions]
        short = len(set(stems)) == len(stems) and not set(stems) & set(RULES)
        names = stems if short else [str(file) for file in settings.predictions]
        files = zip(settings.predictions, names, strict=True)
        return [_from_predictions(settings, rows, file, name) for file, name in files]
    if settings.rules:
        return [_from_rule(settings, rows, rule) for rule in settings.rules]
    return [_from_judge(settings, rows, template, progress) for template in settings.templates]


def score(settings: BenchSettings, rows: Rows, context: Context) -> FlawedPositiveScore | ProcessScore:
    """Return the score of the answers of one judge.

    Args:
        settings: Benchmark.
        rows: Rows of the benchmark.
        context: Answers to these rows.

    Returns:
        The score.
    """
    if settings.benchmark == "process":
        return score_process(rows.counting, rows.subsets, context.verdicts)
    return score_flawed_positive(rows.counting, context.verdicts, settings.invalid)


def _with_chosen_threshold(settings: BenchSettings, rows: Rows, context: Context) -> tuple[Rows, Context]:
    """Choose the threshold on one half of the problems; return the rows of the other, with verdicts by it."""
    chosen, measured = halves(rows.counting)
    threshold = best_threshold(
        [rows.counting[i] for i in chosen],
        [context.verdicts[i] for i in chosen],
        process=settings.benchmark == "process",
    )
    verdicts = [with_threshold(context.verdicts[i], threshold) for i in measured]
    return rows.take(measured), replace(context, verdicts=verdicts, threshold=threshold, num_for_threshold=len(chosen))


def _from_predictions(settings: BenchSettings, rows: Rows, file: Path, name: str) -> Context:
    """Read verdicts from a file of predictions."""
    process = settings.benchmark == "process"
    limit = DEFAULT_THRESHOLD if settings.threshold is None else settings.threshold
    found = read_predictions(file, rows.num_steps, threshold=limit, with_step=process)
    threshold = limit if any(prediction.from_scores for prediction in found.values()) else None
    judge = next((prediction.judge for prediction in found.values() if prediction.judge), "")
    return Context(
        data=settings.data,
        answers=str(file),
        name=name,
        judge=judge,
        verdicts=verdicts_of(rows.counting, found),
        invalid=settings.invalid,
        threshold=threshold,
    )


def _from_rule(settings: BenchSettings, rows: Rows, rule: str) -> Context:
    """Return the answers of a judge that reads nothing, and write them to its file."""
    verdicts = [Verdict.from_step(RULES[rule])] * len(rows.counting)
    if out := settings.out_of(rule):
        write_predictions(out, rows.counting, verdicts, rule)
    return Context(settings.data, rule, rule, rule, verdicts, settings.invalid)


def _from_judge(settings: BenchSettings, rows: Rows, template: str, progress: Progress) -> Context:
    """Judge the rows with one prompt, and write the answers to its file. All prompts share one cache."""
    judge = settings.judge_with(template, settings.cache_beside(settings.out))
    name = judge_name(judge)
    verdicts, usage = judge_rows(settings, rows, judge, progress)
    if out := settings.out_of(template):
        write_predictions(out, rows.counting, verdicts, name)
    threshold = judge.threshold if isinstance(judge, PRMJudge) else None
    reads_reference = any(isinstance(part, CritiqueJudge) for _, part in judge.parts)
    without = sum(not row.problem.reference for row in rows.counting) if reads_reference else 0
    return Context(
        data=settings.data,
        answers=name,
        name=template if isinstance(judge, CritiqueJudge) else "prm" if isinstance(judge, PRMJudge) else "cascade",
        judge=name,
        verdicts=verdicts,
        invalid=settings.invalid,
        threshold=threshold,
        num_without_reference=without,
        usage=usage,
        cache=judge.cache or "",
        prices=settings.prices,
    )


def judge_rows(
    settings: BenchSettings, rows: Rows, judge: ModelJudge | CascadeJudge, progress: Progress
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
    for _, part in judge.parts:
        names_no_step = isinstance(part, CritiqueJudge) and load_template(part.template).kind == "yes_no"
        if settings.benchmark == "process" and names_no_step:
            raise ConfigError(
                f"{judge_name(judge)}: asks yes or no, so it names no step, which `process` needs; use locate"
            )
    verdicts: dict[str, Verdict] = {}
    task = f"bench {settings.benchmark}"
    if isinstance(judge, CritiqueJudge) and settings.compares:
        task += f", {judge.template}"
    breaker = CircuitBreaker(remedy=repeat_command(judge.cache), num_expected=len(rows.counting))

    async def run() -> Usage:
        async with open_judge(judge, use_cache=not settings.no_cache) as opened:

            async def ask(batch: Sequence[LabelledSolution]) -> list[str]:
                found = await opened.judge_steps([(row.problem, row.steps) for row in batch])
                verdicts.update((row.problem.id, verdict) for row, verdict in zip(batch, found, strict=True))
                return [verdict.reason if verdict.status == "failed" else "" for verdict in found]

            await run_batches(
                rows.counting,
                ask,
                batch_size=1 if judge.num_requests else LOCAL_BATCH,
                concurrency=judge.num_requests or 1,
                record=breaker.record,
                progress=lambda done: progress(task, done, len(rows.counting), opened.usage.progress_metrics),
            )
            return opened.usage.total

    usage = asyncio.run(run())
    return [verdicts[row.problem.id] for row in rows.counting], usage
