"""Score rollouts one by one while the other rollouts of their batch are still being generated."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fapo.data.final_answers import extract
from fapo.judge.canaries import Canaries
from fapo.judge.deduplicate import DeduplicatingJudge
from fapo.rewards.scorer import PolicyScorer
from fapo.rewards.verify import Check, acheck_answer, acheck_answers
from fapo.types import Judge, Rollout, Verdict


class EagerJudge:
    """A `Judge` that can start before the scorer asks for the verdicts of a batch.

    It stands in a `PolicyScorer` for the judge and for the answer check (see `make_eager`). Both wait for what `begin`
    has started and do the rest when they are called. Nothing is kept from one batch to the next. All calls of one
    object belong to the same event loop.
    """

    def __init__(self, judge: Judge, *, judge_all: bool = False) -> None:
        """Start without rollouts.

        Args:
            judge: Judge that is asked.
            judge_all: Whether to judge rollouts with a wrong answer, too.
        """
        self.judge, self.judge_all = judge, judge_all
        self._judge = DeduplicatingJudge(judge, max_kept=None, keep_failures=True)
        self._checks: dict[tuple[str | None, str], asyncio.Future[Check]] = {}
        self._begun: list[asyncio.Future[None]] = []

    def begin(self, rollout: Rollout) -> None:
        """Start to check the answer of a rollout, and to judge it if the answer is correct."""
        key = _answer_key(rollout.response, rollout.problem.reference)
        if key not in self._checks:
            check = acheck_answer(rollout.response, rollout.problem.reference)
            self._checks[key] = asyncio.ensure_future(check)
        self._begun.append(asyncio.ensure_future(self._begin_judging(rollout, self._checks[key])))

    async def checks(self, pairs: Sequence[tuple[str, str]]) -> list[Check]:
        """Return one answer check for each (response, reference) pair, in order, as `acheck_answers` does."""
        keys = [_answer_key(*pair) for pair in pairs]
        rest = [pair for pair, key in zip(pairs, keys, strict=True) if key not in self._checks]
        try:
            others = iter(await acheck_answers(rest))
            found = [await self._checks[key] if key in self._checks else next(others) for key in keys]
            await asyncio.gather(*self._begun)
        finally:
            self._checks, self._begun = {}, []
        return found

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Verdict]:
        """Return one verdict for each rollout, in order; those that were not begun are judged in one call."""
        try:
            return await self._judge(rollouts)
        finally:
            self._judge.clear()

    async def cancel(self) -> None:
        """Cancel all checks and requests that were begun, and return when they have ended."""
        begun: list[asyncio.Future[Any]] = [*self._begun, *self._checks.values()]
        for future in begun:
            future.cancel()
        self._begun, self._checks = [], {}
        await asyncio.gather(*begun, *self._judge.clear(), return_exceptions=True)

    async def _begin_judging(self, rollout: Rollout, check: asyncio.Future[Check]) -> None:
        """Start to judge a rollout when its answer is checked; return without waiting for the verdict."""
        if (await check).correct or self.judge_all:
            self._judge.start([rollout])


def _answer_key(response: str, reference: str) -> tuple[str | None, str]:
    """Return a key that is the same for responses that need one answer check."""
    return extract(response), reference


def make_eager(scorer: PolicyScorer) -> tuple[PolicyScorer, EagerJudge]:
    """Return a copy of a scorer that uses an eager judge, and that judge.

    Canaries are drawn for a whole batch, so they are judged when the batch is complete, and not by the eager judge.

    Args:
        scorer: Scorer with a judge.

    Returns:
        The copy, which gives the same scores, and the judge; pass finished rollouts to `begin` of the judge.
    """
    assert scorer.judge, "an eager scorer needs a judge"
    canaries = scorer.judge if isinstance(scorer.judge, Canaries) else None
    eager = EagerJudge(canaries.judge if canaries else scorer.judge, judge_all=scorer.judge_all)
    judge = replace(canaries, judge=eager, uncached=canaries.uncached or canaries.judge) if canaries else eager
    return replace(scorer, judge=judge, check=eager.checks), eager
