"""Rollouts looked into one by one, while the others of their batch are still being written."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fapo.judge.canaries import Canaries
from fapo.rewards import verify as answers
from fapo.rewards.scorer import PolicyScorer
from fapo.types import Judge, Rollout, Verdict


@dataclass(eq=False)
class Ahead:
    """Answer checks and verdicts that can be begun before a scorer asks for them.

    It stands in a scorer for both its checks and its judge (see `ahead_of`): what was begun is waited for, the rest is
    done when asked for, and equal solutions are judged once either way. All of it belongs to one event loop.
    """

    judge: Judge
    """Who is asked."""
    judge_all: bool
    """Ask about wrong rollouts too."""
    on_record: Collection[tuple[str, str]] = ()
    """Problem ids and responses that somebody before it answers for: never begun."""
    _looking: list[asyncio.Future[None]] = field(default_factory=list, init=False, repr=False)
    _checks: dict[Any, asyncio.Future[answers.Check]] = field(default_factory=dict, init=False, repr=False)
    _verdicts: dict[Any, asyncio.Future[Verdict]] = field(default_factory=dict, init=False, repr=False)

    def begin(self, rollout: Rollout) -> None:
        """Check its answer now, and ask the judge if it is right."""
        key = _answer(rollout.response, rollout.problem.reference)
        if key not in self._checks:
            check = answers.acheck(rollout.response, rollout.problem.reference)
            self._checks[key] = asyncio.ensure_future(check)
        if (rollout.problem.id, rollout.response) not in self.on_record:
            self._looking.append(asyncio.ensure_future(self._look(rollout, self._checks[key])))

    async def _look(self, rollout: Rollout, check: asyncio.Future[answers.Check]) -> None:
        right = (await check).correct
        if (right or self.judge_all) and (key := rollout.judge_key) not in self._verdicts:
            self._verdicts[key] = asyncio.ensure_future(_one_of(self.judge([rollout]), 0))

    async def checks(self, pairs: Sequence[tuple[str, str]]) -> list[answers.Check]:
        """`answers.acheck_many`; a check that was begun is not done again."""
        keys = [_answer(*pair) for pair in pairs]
        rest = [pair for pair, key in zip(pairs, keys, strict=True) if key not in self._checks]
        try:
            others = iter(await answers.acheck_many(rest))
            found = [await self._checks[key] if key in self._checks else next(others) for key in keys]
            await asyncio.gather(*self._looking)
        finally:
            self._checks, self._looking = {}, []
        return found

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Verdict]:
        """A `Judge`: the verdicts that were begun, and those on the rest, asked for together."""
        keys = [rollout.judge_key for rollout in rollouts]
        rows = dict(zip(keys, rollouts, strict=True))
        rest = [key for key in rows if key not in self._verdicts]
        if rest:
            asked = asyncio.ensure_future(self.judge([rows[key] for key in rest]))
            self._verdicts |= {key: asyncio.ensure_future(_one_of(asked, i)) for i, key in enumerate(rest)}
        try:
            await asyncio.gather(*(self._verdicts[key] for key in rows))
            return [self._verdicts[key].result() for key in keys]
        finally:
            for future in self._verdicts.values():
                future.cancel()
            self._verdicts = {}

    async def drop(self) -> None:
        """Give up what was begun; requests under way are cancelled."""
        begun: list[asyncio.Future[Any]] = [*self._looking, *self._checks.values(), *self._verdicts.values()]
        for future in begun:
            future.cancel()
        await asyncio.gather(*begun, return_exceptions=True)
        self._looking, self._checks, self._verdicts = [], {}, {}


async def _one_of(asked: Awaitable[list[Verdict]], i: int) -> Verdict:
    return (await asked)[i]


def _answer(response: str, reference: str) -> Any:
    """What is the same for answers that need one check."""
    return answers.extract(response), reference


def ahead_of(scorer: PolicyScorer, on_record: Collection[tuple[str, str]] = ()) -> tuple[PolicyScorer, Ahead]:
    """The same scorer, and what its rollouts can be told to one by one. The scorer must have a judge.

    Canaries are drawn from a whole batch, so they are asked about when it is complete.
    """
    assert scorer.judge
    canaries = scorer.judge if isinstance(scorer.judge, Canaries) else None
    ahead = Ahead(canaries.judge if canaries else scorer.judge, scorer.judge_all, on_record)
    return replace(scorer, judge=replace(canaries, judge=ahead) if canaries else ahead, check=ahead.checks), ahead
