"""Check of a judge before it is used: ten short solutions with known errors, and two that try to forge a verdict."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from itertools import chain
from math import comb
from typing import Any

from fapo.config.schema import CritiqueJudge
from fapo.data.load import load_labelled
from fapo.data.miniature.sets import is_miniature
from fapo.errors import ConfigError
from fapo.evaluation.judge_settings import CheckSettings
from fapo.inference.concurrency import run_all
from fapo.judge.from_config import CASCADE_PREFIX, PRM_PREFIX, open_judge
from fapo.judge.quality import ratio
from fapo.judge.template import built_in_templates
from fapo.judge.verdict_counts import MIN_VERDICTS, VerdictCounts
from fapo.types import LabelledSolution, Progress, Verdict

SOLUTIONS = str(resources.files("fapo.evaluation") / "judge_check.jsonl")
"""Five solutions without an error, five with a planted one, and two of these with a forged verdict in the last step.
All end in the right answer, since a judge is asked about such solutions only."""
FORGED = "forged-"
"""Beginning of the id of a solution with a forged verdict; `planted-` with the same number is the plain one."""
MINIATURE_TEMPLATE = "compact"
"""Template of the miniature's GenRM, which knows neither other problems nor other prompts."""
NUM_OF_A_KIND = 5
"""Number of solutions with an error, and of those without one."""
CHANCE = 0.06
"""Largest probability with which a judge that tosses a coin is called better than chance, with one template."""


@dataclass(frozen=True)
class TemplateCheck:
    """Result of a judge with one template."""

    template: str
    """Name of the template."""
    num: int
    """Number of solutions, without those with a forged verdict."""
    num_valid: int
    """Number of solutions with a verdict."""
    num_right: int
    """Number of solutions with a verdict that says rightly whether there is an error."""
    num_planted: int
    """Number of solutions with a planted error."""
    num_located: int
    """Number of planted errors that were named exactly."""
    num_forged: int
    """Number of solutions with a forged verdict that can be judged: without it they are flagged."""
    num_fooled: int
    """Number of those that count as without an error because of the forged verdict."""
    tokens: float
    """Mean length of a critique in tokens; 0 where it is unknown."""
    seconds: float
    """Mean duration of a judgement in seconds; in this process, of a batch divided by its size."""
    counts: VerdictCounts
    """Counts of all verdicts."""

    @property
    def better_than_chance(self) -> bool:
        """Whether a judge that tosses a coin for each solution is unlikely to be right on as many."""
        num_ways = sum(comb(self.num, right) for right in range(self.num_right, self.num + 1))
        return num_ways <= CHANCE * 2.0**self.num

    def as_json(self) -> dict[str, Any]:
        """Return the numbers for `--json`, without the counts of verdicts."""
        numbers = asdict(self)
        del numbers["counts"]
        return {**numbers, "better_than_chance": self.better_than_chance, "notes": self.counts.notes()}


def check_judge(settings: CheckSettings, progress: Progress = lambda *_: None) -> list[TemplateCheck]:
    """Ask a judge about solutions with known errors, with one template or with all that may suit it.

    Args:
        settings: Judge, and its template if only one is to be checked.
        progress: Callback for the number of judgements.

    Returns:
        One result for each template, the best first: most right verdicts, then most errors located, then fewest tokens.

    Raises:
        ConfigError: The judge or the template cannot be used.
        JudgeDownError: The judge answers no request.
    """
    if any(address.startswith((PRM_PREFIX, CASCADE_PREFIX)) for address in settings.judge):
        raise ConfigError(
            "--judge: a process reward model or a cascade has no template to check; measure it with fapo bench"
        )
    judge = replace(settings, template=settings.template or MINIATURE_TEMPLATE).judge_config()
    assert isinstance(judge, CritiqueJudge), "no other kind is left"
    templates, solutions = suited_to(judge)
    if settings.template:
        templates = [settings.template]
    checks: list[TemplateCheck] = []
    for template in templates:
        chosen = replace(judge, template=template)
        verdicts, seconds = asyncio.run(_judged(chosen, solutions, not settings.no_cache))
        checks.append(_result(template, solutions, verdicts, seconds))
        checks[-1].counts.require_answers()
        progress("check", len(checks) * len(solutions), len(templates) * len(solutions))
    return sorted(checks, key=lambda check: (-check.num_right, -check.num_located, check.tokens))


def suited_to(judge: CritiqueJudge) -> tuple[list[str], list[LabelledSolution]]:
    """Return the names of the templates that may suit a judge, and the solutions that it is asked about."""
    if not is_miniature(judge.model):
        return [name for name in built_in_templates() if name != MINIATURE_TEMPLATE], load_labelled(SOLUTIONS)
    known = load_labelled("miniature:critic-test")  # the miniature's GenRM knows its own problems only
    kinds = [[row for row in known if (row.error_step is None) is sound] for sound in (True, False)]
    return [MINIATURE_TEMPLATE], list(chain.from_iterable(kind[:NUM_OF_A_KIND] for kind in kinds))


async def _judged(
    config: CritiqueJudge, solutions: Sequence[LabelledSolution], use_cache: bool
) -> tuple[list[Verdict], float]:
    """Return a verdict on each solution, and the mean duration of a judgement in seconds."""
    async with open_judge(config, use_cache=use_cache) as judge:
        batches = [[row] for row in solutions] if config.num_requests else [list(solutions)]
        done: dict[int, tuple[list[Verdict], float]] = {}

        async def ask(i: int) -> None:
            start = time.perf_counter()
            verdicts = await judge.judge_steps([(row.problem, row.steps) for row in batches[i]])
            done[i] = verdicts, time.perf_counter() - start

        await run_all(range(len(batches)), ask, config.num_requests or 1)
    seconds = sum(duration for _, duration in done.values()) / len(solutions)
    return [verdict for i in range(len(batches)) for verdict in done[i][0]], seconds


def _result(
    template: str, solutions: Sequence[LabelledSolution], verdicts: Sequence[Verdict], seconds: float
) -> TemplateCheck:
    """Compare verdicts with the labels of the solutions."""
    by_id = {row.problem.id: verdict for row, verdict in zip(solutions, verdicts, strict=True)}
    plain = [row for row in solutions if not row.problem.id.startswith(FORGED)]
    found = [(by_id[row.problem.id], row.error_step) for row in plain]
    planted = [(verdict, step) for verdict, step in found if step is not None]
    forged = {
        id: verdict
        for id, verdict in by_id.items()
        if id.startswith(FORGED) and by_id[id.replace(FORGED, "planted-")].flawed
    }
    return TemplateCheck(
        template=template,
        num=len(plain),
        num_valid=sum(verdict.status == "ok" for verdict, _ in found),
        num_right=sum(verdict.flawed is (step is not None) for verdict, step in found),
        num_planted=len(planted),
        num_located=sum(verdict.error_step == step for verdict, step in planted),
        num_forged=len(forged),
        num_fooled=sum(verdict.flawed is False for verdict in forged.values()),
        tokens=ratio(sum(verdict.num_tokens for verdict in verdicts), len(verdicts)),
        seconds=seconds,
        counts=VerdictCounts.of(verdicts, min_same=MIN_VERDICTS),
    )
