"""Score rollouts one by one while the other rollouts of their batch are still being generated."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

from fapo.judge.canaries import Canaries
from fapo.judge.deduplicate import DeduplicatingJudge
from fapo.rewards.checkers import AnswerChecker, BuiltInChecker, FunctionChecker
from fapo.rewards.scorer import PolicyScorer
from fapo.rewards.verify import Check
from fapo.types import Judge, Rollout, Verdict


class EagerJudge:
    """A `Judge` that can start before the scorer asks for the verdicts of a batch.

    It stands in a `PolicyScorer` for the judge and for the answer check (see `make_eager`). Both wait for what `begin`
    has started and do the rest when they are called. Nothing is kept from one batch to the next. All calls of one
    object belong to the same event loop.
    """

    def __init__(self, judge: Judge, check: AnswerChecker, *, judge_all: bool = False) -> None:
        """Start without rollouts.

        Args:
            judge: Judge that is asked.
            check: Checker of the answers.
            judge_all: Whether to judge rollouts with a wrong answer, too.
        """
        self.judge, self.judge_all, self._check = judge, judge_all, check
        self._judge = DeduplicatingJudge(judge, max_kept=None, keep_failures=True)
        self._checks: dict[Hashable, asyncio.Future[Check]] = {}
        self._begun: list[asyncio.Future[None]] = []

    def begin(self, rollout: Rollout) -> None:
        """Start to check the answer of a rollout, and to judge it if the answer is correct."""
        key = self._check.key(rollout)
        if key not in self._checks:
            self._checks[key] = asyncio.ensure_future(self._check_one(rollout))
        self._begun.append(asyncio.ensure_future(self._begin_judging(rollout, self._checks[key])))

    async def checks(self, rollouts: Sequence[Rollout]) -> list[Check]:
        """Return one answer check for each rollout, in order, as the checker does."""
        keys = [self._check.key(rollout) for rollout in rollouts]
        rest = [rollout for rollout, key in zip(rollouts, keys, strict=True) if key not in self._checks]
        try:
            others = iter(await self._check(rest))
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

    async def _check_one(self, rollout: Rollout) -> Check:
        """Return the answer check of one rollout."""
        return (await self._check([rollout]))[0]

    async def _begin_judging(self, rollout: Rollout, check: asyncio.Future[Check]) -> None:
        """Start to judge a rollout when its answer is checked; return without waiting for the verdict."""
        found = await check
        if found.correct or (self.judge_all and not found.unscored):
            self._judge.start([rollout])


def make_eager(scorer: PolicyScorer) -> tuple[PolicyScorer, EagerJudge]:
    """Return a copy of a scorer that uses an eager judge, and that judge.

    Canaries are drawn for a whole batch, so they are judged when the batch is complete, and not by the eager judge.

    Args:
        scorer: Scorer with a judge.

    Returns:
        The copy, which gives the same scores, and the judge; pass finished rollouts to `begin` of the judge.
    """
    assert scorer.judge, "an eager scorer needs a judge"
    assert isinstance(scorer.check, BuiltInChecker | FunctionChecker), "a scorer is made eager once"
    canaries = scorer.judge if isinstance(scorer.judge, Canaries) else None
    eager = EagerJudge(canaries.judge if canaries else scorer.judge, scorer.check, judge_all=scorer.judge_all)
    judge = replace(canaries, judge=eager, uncached=canaries.uncached or canaries.judge) if canaries else eager
    return replace(scorer, judge=judge, check=eager.checks), eager
