"""Asking a judge about the rows of a benchmark."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Sequence

from fapo.config.schema import ModelJudge, ServedJudge
from fapo.errors import ConfigError
from fapo.evaluation.judge_benchmarks.rows import Benchmark, Rows
from fapo.inference.concurrency import run_batches
from fapo.judge.from_config import opened
from fapo.judge.genrm import CircuitBreaker, start_again
from fapo.judge.template import load_template
from fapo.types import LabelledSolution, Verdict

RULES = {"flag-all": 0, "flag-none": None}
"""Judges that read nothing -> the first wrong step they always name."""
LOCAL_BATCH = 32
"""Number of rows that a model in this process judges before their critiques are written to the cache."""


def run_judge(
    benchmark: Benchmark,
    rows: Rows,
    judge: ModelJudge | str,
    *,
    fresh: bool = False,
    progress: Callable[[int], None] = lambda num_done: None,
) -> list[Verdict]:
    """One verdict for each row that counts, by a judge or by one of RULES.

    With a cache, what is on record there is not asked again, unless `fresh`. Raises ConfigError for a judge that
    cannot do it, and JudgeDownError when only failures come back.
    """
    if benchmark == "process" and not isinstance(judge, str) and load_template(judge.template).kind == "yes_no":
        raise ConfigError(
            f"{judge_name(judge)}: asks yes or no, so it names no step, which `process` needs; use locate or compact"
        )
    if isinstance(judge, str):
        return [Verdict.from_step(RULES[judge])] * len(rows.counting)
    verdicts: dict[str, Verdict] = {}

    breaker = CircuitBreaker(remedy=start_again(judge.cache), num_expected=len(rows.counting))

    async def run() -> None:
        async with opened(judge, fresh=fresh) as genrm:

            async def ask(some: Sequence[LabelledSolution]) -> list[str]:
                found = await genrm.judge_steps([(row.problem, row.steps) for row in some])
                verdicts.update((row.problem.id, verdict) for row, verdict in zip(some, found, strict=True))
                return [verdict.reason if verdict.status == "failed" else "" for verdict in found]

            await run_batches(
                rows.counting,
                ask,
                batch_size=1 if isinstance(judge, ServedJudge) else LOCAL_BATCH,
                concurrency=judge.concurrency if isinstance(judge, ServedJudge) else 1,
                record=breaker.record,
                progress=progress,
            )

    asyncio.run(run())
    return [verdicts[row.problem.id] for row in rows.counting]


def judge_name(judge: ModelJudge | str) -> str:
    """Model and settings, wherever its servers are."""
    if isinstance(judge, str):
        return judge
    prompt = f"{judge.template} ({zlib.crc32(load_template(judge.template).text.encode('utf-8')):08x})"
    sampling = f"votes {judge.votes}, temperature {judge.temperature:g}, max tokens {judge.max_tokens}"
    sampling += f", min words {judge.min_words}" if judge.min_words else ""
    return f"{judge.model}, prompt {prompt}, {sampling}"
