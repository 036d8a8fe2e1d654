"""The corrected reward and the penalty that follows rho: closed forms and invariants."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.config import RewardConfig
from fapo.rewards import corrected_reward, fapo_reward, following_penalty
from fapo.scoring import PolicyScorer
from fapo.types import Problem, Rollout, Verdict

PROBLEM = Problem("p", "start 17, add 5; mod 5", "2", "")
rates = st.tuples(st.floats(0.05, 1), st.floats(0, 0.95)).filter(lambda pair: pair[0] > pair[1] + 0.01)


@given(st.floats(0, 3), rates)
def test_the_corrected_reward_is_right_on_average(penalty: float, judge: tuple[float, float]) -> None:
    recall, alarms = judge
    flagged, cleared = (corrected_reward(True, flawed, penalty, recall, alarms) for flawed in (True, False))
    assert recall * flagged + (1 - recall) * cleared == pytest.approx(1 - penalty, abs=1e-6)
    assert alarms * flagged + (1 - alarms) * cleared == pytest.approx(1, abs=1e-6)


@given(st.booleans(), st.none() | st.booleans(), st.floats(0, 3))
def test_a_judge_without_errors_needs_no_correction(correct: bool, flawed: bool | None, penalty: float) -> None:
    assert corrected_reward(correct, flawed, penalty, 1.0, 0.0) == fapo_reward(correct, flawed, penalty)


def test_a_judge_that_says_nothing_cannot_be_corrected() -> None:
    with pytest.raises(ValueError, match="more of the flawed than of the sound"):
        corrected_reward(True, True, 1.0, 0.3, 0.3)


@given(st.integers(0, 9), st.integers(0, 9))
def test_a_penalty_that_follows_rho_changes_sign_where_lambda_1_does(sound: int, wrong: int) -> None:
    penalty = following_penalty(sound, wrong)
    assert 0 <= penalty <= 2
    others = (sound - wrong) / max(sound + wrong, 1)  # the mean of the rest of the group
    assert np.sign(round((1 - penalty) - others, 9)) == np.sign(wrong - sound)


def test_lambda_follows_the_rho_of_each_question() -> None:
    async def judge(rollouts: list[Rollout]) -> list[Verdict]:
        return [Verdict("ok", error_step=0 if "flaw" in r.response else None) for r in rollouts]

    def rollouts(problem: Problem, *texts: str) -> list[Rollout]:
        return [Rollout(problem, text, 5) for text in texts]

    other = Problem("q", PROBLEM.text, "2", "")
    right, flawed, wrong = "\\boxed{2}", "flaw\n\n\\boxed{2}", "\\boxed{3}"
    scorer = PolicyScorer(RewardConfig("fapo", follow_rho=True), judge)  # type: ignore[arg-type]
    mixed = rollouts(PROBLEM, right, right, right, flawed, wrong) + rollouts(other, flawed, wrong)
    rewards = [s.reward.value for s in asyncio.run(scorer(mixed))]
    assert rewards == pytest.approx([1, 1, 1, 1 - 2 * 3 / 4, -1, 1, -1])
