"""Asking a judge about the rows of a benchmark: several at once, every answer on file as soon as it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from fapo.benchmarks.judges import RULES, JudgeSettings, complete
from fapo.benchmarks.predictions import record, resume
from fapo.benchmarks.rows import Benchmark, Rows
from fapo.client import ChatClient
from fapo.data import LabelledSolution
from fapo.judge import GenRM
from fapo.types import Problem, Verdict

PATIENCE = 32
"""So many judgements that all fail, from the first on, end the run."""

Judged = Sequence[tuple[LabelledSolution, Verdict]]
Ask = Callable[[Sequence[tuple[Problem, Sequence[str]]]], Awaitable[list[Verdict]]]


def run_judge(
    benchmark: Benchmark,
    rows: Rows,
    settings: JudgeSettings,
    out: Path | None = None,
    progress: Callable[[int], None] = lambda num_done: None,
) -> list[Verdict]:
    """One verdict for each row that counts. What `out` already holds is not asked again, what comes is appended.

    Raises ValueError for a judge that cannot do it, or when nothing but failures came back from the first row on.
    """
    if benchmark == "process" and not settings.located:
        raise ValueError(f"template {settings.template!r} asks yes or no: it cannot say which step, as `process` needs")
    known: dict[str, Verdict] = {}
    if out is not None:
        found = resume(out, rows.num_steps, settings.name, located=benchmark == "process")
        known = {id: prediction.verdict for id, prediction in found.items() if prediction.verdict}
    new = [row for row in rows.counting if row.problem.id not in known]
    num_done = len(rows.counting) - len(new)
    progress(num_done)

    def done(judged: Judged) -> None:
        nonlocal num_done
        verdicts = {row.problem.id: verdict for row, verdict in judged}
        if out is not None:
            record(out, verdicts.items(), settings.name, located=settings.located)
        known.update(verdicts)
        num_done += len(judged)
        progress(num_done)

    if new:
        asyncio.run(judge_rows(settings, new, done))
    return [known[row.problem.id] for row in rows.counting]


async def judge_rows(
    settings: JudgeSettings,
    rows: Sequence[LabelledSolution],
    done: Callable[[Judged], None],
) -> None:
    """Ask about every row and hand over the verdicts as they come in."""
    if settings.is_rule:
        done([(row, Verdict("ok", RULES[settings.judge[0]])) for row in rows])
        return
    model = complete(settings)
    genrm = GenRM(settings.prompt, model, settings.votes)
    if not isinstance(model, ChatClient):
        await ask(genrm.judge_steps, rows, done, size=settings.concurrency, parallel=1)
        return
    try:
        await ask(genrm.judge_steps, rows, done, size=1, parallel=settings.concurrency)
    finally:
        await model.aclose()


async def ask(
    judge: Ask,
    rows: Sequence[LabelledSolution],
    done: Callable[[Judged], None],
    *,
    size: int,
    parallel: int,
) -> None:
    """Batches of `size` rows, `parallel` of them at once."""
    slots = asyncio.Semaphore(parallel)

    async def batch(chosen: Sequence[LabelledSolution]) -> list[tuple[LabelledSolution, Verdict]]:
        async with slots:
            verdicts = await judge([(row.problem, row.steps) for row in chosen])
            return list(zip(chosen, verdicts, strict=True))

    tasks = [asyncio.create_task(batch(rows[start : start + size])) for start in range(0, len(rows), size)]
    num = num_failed = 0
    try:
        for task in asyncio.as_completed(tasks):
            judged = await task
            done(judged)
            num += len(judged)
            num_failed += sum(verdict.status == "failed" for _, verdict in judged)
            if num_failed == num >= min(PATIENCE, len(rows)):
                raise ValueError(f"the judge answered none of the first {num} rows: {judged[-1][1].reason}")
    finally:
        for started in tasks:
            started.cancel()
