"""Eager judging: the scores of a whole batch, one request for each solution, and nothing left after a batch."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.config.schema import FapoReward
from fapo.judge.canaries import Canaries
from fapo.rewards.eager_scorer import EagerJudge, make_eager
from fapo.rewards.scorer import PolicyScorer
from fapo.types import Judge, LabelledSolution, Problem, Rollout, ScoredRollout, Verdict

PROBLEMS = [Problem(str(i), f"What is {i} + 2?", str(i + 2)) for i in range(3)]
TEXTS = ("Two more.\n\n\\boxed{2}", "Count.\n\nOn.\n\n\\boxed{3}", "\\boxed{4.0}", "no answer")
ROLLOUTS = [Rollout(problem, text, len(text)) for problem in PROBLEMS for text in TEXTS]


class Watched:
    """A judge that flags long responses and keeps the batches it was asked about."""

    def __init__(self, broken: bool = False) -> None:
        self.asked: list[list[Rollout]] = []
        self.broken, self.cancelled = broken, 0

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Verdict]:
        self.asked.append(list(rollouts))
        try:
            await asyncio.sleep(600 if self.broken and len(self.asked) > 1 else 0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.broken:
            raise ValueError("the cache cannot be used")
        return [Verdict.from_step(1 if len(r.response) > 20 else None, f"on {r.problem.id}") for r in rollouts]

    @property
    def solutions(self) -> list[tuple[str, str]]:
        return sorted((r.problem.id, r.response) for rollouts in self.asked for r in rollouts)


async def in_pieces(
    scorer: PolicyScorer, eager: EagerJudge, begun: Sequence[Rollout], all: Sequence[Rollout]
) -> list[ScoredRollout]:
    for rollout in begun:
        eager.begin(rollout)
        await asyncio.sleep(0)
    return await scorer(all)


@given(st.lists(st.sampled_from(ROLLOUTS), max_size=12), st.data(), st.booleans())
def test_begun_or_not_the_scores_are_the_same_and_a_solution_is_judged_once(
    rollouts: list[Rollout], data: st.DataObject, judge_all: bool
) -> None:
    begun = data.draw(st.lists(st.sampled_from(rollouts), max_size=12) if rollouts else st.just([]))
    plain = PolicyScorer(FapoReward(), Watched(), judge_all=judge_all)
    judge = Watched()
    scorer, eager = make_eager(replace(plain, judge=judge))
    assert asyncio.run(in_pieces(scorer, eager, begun, rollouts)) == asyncio.run(plain(rollouts))
    right = {
        (r.problem.id, r.response) for r in rollouts if judge_all or f"\\boxed{{{r.problem.reference}" in r.response
    }
    assert judge.solutions == sorted(right)


def test_nothing_is_carried_over_to_the_next_batch() -> None:
    judge = Watched()
    scorer, eager = make_eager(PolicyScorer(FapoReward(), judge))

    async def two_batches() -> None:
        await in_pieces(scorer, eager, ROLLOUTS, ROLLOUTS)
        await in_pieces(scorer, eager, ROLLOUTS[:4], ROLLOUTS)

    asyncio.run(two_batches())
    assert judge.solutions == sorted([("0", TEXTS[0]), ("1", TEXTS[1]), ("2", TEXTS[2])] * 2)


def test_an_exception_of_a_begun_request_ends_the_batch_and_cancels_the_rest() -> None:
    judge = Watched(broken=True)
    scorer, eager = make_eager(PolicyScorer(FapoReward(), judge))
    with pytest.raises(ValueError, match="the cache cannot be used"):
        asyncio.run(in_pieces(scorer, eager, ROLLOUTS, ROLLOUTS))
    assert (len(judge.asked), judge.cancelled) == (3, 2)


def test_cancelled_requests_are_made_again() -> None:
    judge = Watched(broken=True)
    scorer, eager = make_eager(PolicyScorer(FapoReward(), judge))

    async def give_up() -> None:
        judge.asked = [[]]  # every answer takes minutes
        for rollout in ROLLOUTS:
            eager.begin(rollout)
        while len(judge.asked) - 1 < 3:
            await asyncio.sleep(0.01)
        await eager.cancel()
        assert (len(judge.asked) - 1, judge.cancelled) == (3, 3)
        judge.broken, judge.asked = False, []
        await scorer(ROLLOUTS)

    asyncio.run(give_up())
    assert len(judge.solutions) == 3


def test_canaries_are_those_of_the_whole_batch() -> None:
    known = [LabelledSolution(PROBLEMS[0], ("a", "b"), label, True) for label in (None, 1)]

    def canaries(judge: Judge) -> PolicyScorer:
        return PolicyScorer(FapoReward(), Canaries(judge, known, 1.0, seed=3))

    plain, judge = Watched(), Watched()
    expected = asyncio.run(canaries(plain)(ROLLOUTS))
    scorer, eager = make_eager(canaries(judge))
    assert asyncio.run(in_pieces(scorer, eager, ROLLOUTS, ROLLOUTS)) == expected
    assert set(judge.solutions) == set(plain.solutions)
    assert len(set(judge.solutions)) == 4, "three rollouts and one canary"
