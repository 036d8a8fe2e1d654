"""Decoupled advantages, against tables, by their invariants, and on scored rollouts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.config.schema import DecoupledReward, FapoReward
from fapo.rewards.advantages import group_advantages
from fapo.rewards.decoupled import decoupled_advantages
from fapo.rewards.scorer import PolicyScorer, batch_advantages
from fapo.types import Problem, Rollout, ScoredRollout, Verdict

HALF = math.sqrt(0.5)
OUTCOME = {"a": 1.0, "f": 1.0, "w": -1.0, "u": None}
PROCESS = {"a": 0.0, "f": -1.0, "w": None, "u": None}


def of(group: str, weight: float = 1.0) -> np.ndarray:
    """Return the advantages of a group: a is fully correct, f flawed, w wrong, u unscored."""
    return decoupled_advantages([[OUTCOME[k] for k in group]], [[PROCESS[k] for k in group]], weight)[0]


@pytest.mark.parametrize(
    ("group", "weight", "expected"),
    [
        ("aw", 1.0, [HALF, -HALF]),
        ("af", 1.0, [HALF, -HALF]),  # all answers are right: the verdict alone teaches
        ("af", 3.0, [3 * HALF, -3 * HALF]),
        ("aa", 1.0, [0, 0]),
        ("ff", 1.0, [0, 0]),
        ("ww", 1.0, [0, 0]),
        ("fw", 1.0, [HALF, -HALF]),  # nothing to compare the flaw with: plain GRPO
        ("ffww", 1.0, [math.sqrt(0.75)] * 2 + [-math.sqrt(0.75)] * 2),
        ("afww", 1.0, [math.sqrt(0.75) + HALF, math.sqrt(0.75) - HALF, *[-math.sqrt(0.75)] * 2]),
        ("afwwu", 1.0, [math.sqrt(0.75) + HALF, math.sqrt(0.75) - HALF, *[-math.sqrt(0.75)] * 2, 0]),
        ("au", 1.0, [0, 0]),
    ],
)
def test_values(group: str, weight: float, expected: list[float]) -> None:
    np.testing.assert_allclose(of(group, weight), expected, rtol=3e-4, atol=1e-12)


groups = st.text("afwu", min_size=1, max_size=12)


@given(groups, st.floats(0.1, 5))
def test_invariants(group: str, weight: float) -> None:
    found, plain = of(group, weight), group_advantages([[OUTCOME[k] for k in group]])[0]
    kinds = np.array([*group])
    right = (kinds == "a") | (kinds == "f")
    assert found.sum() == pytest.approx(0, abs=1e-9)
    assert (found[kinds == "u"] == 0).all()
    np.testing.assert_array_equal(found[kinds == "w"], plain[kinds == "w"])
    if right.any():  # flawed positives do not narrow the gap between right and wrong answers
        assert found[right].mean() == pytest.approx(plain[right].mean(), abs=1e-9)
    if "a" in group and "f" in group:
        assert found[kinds == "a"].min() > found[kinds == "f"].max()
        if "w" not in group:
            np.testing.assert_allclose(found, weight * of(group), rtol=1e-9)
    else:
        np.testing.assert_array_equal(found, plain)


VERDICTS = {"a": Verdict.from_step(None), "f": Verdict.from_step(1), "u": Verdict("failed", reason="no answer")}


def scored(kind: str, reward: DecoupledReward, num_tokens: int = 1) -> ScoredRollout:
    """Return a rollout of a class, scored as in training."""
    rollout, verdict = Rollout(Problem("p", "", "1"), "x", num_tokens), VERDICTS.get(kind)
    return ScoredRollout(
        rollout, kind != "w", verdict, PolicyScorer(reward, None, 100).reward(rollout, kind != "w", verdict)
    )


def test_scored_rollouts_of_groups_in_any_order() -> None:
    reward = DecoupledReward(weight=0.5)
    names, kinds = [*"xyxxyyx"], [*"awfwauw"]
    found = batch_advantages([scored(kind, reward) for kind in kinds], names, reward)
    for name in "xy":
        own = [i for i, other in enumerate(names) if other == name]
        np.testing.assert_allclose(found[own], of("".join(kinds[i] for i in own), 0.5), rtol=1e-12)
    values = [scored(kind, reward).reward.value for kind in "afwu"]
    assert values == [1.0, 0.0, -1.0, None], "the recorded reward is the sum of outcome and process score"


def test_the_length_penalty_belongs_to_the_outcome() -> None:
    reward = DecoupledReward(overlong_buffer=50)
    rows = [scored(kind, reward, num_tokens) for kind, num_tokens in [("a", 1), ("f", 75), ("w", 100)]]
    expected = decoupled_advantages([[1.0, 0.5, -2.0]], [[0.0, -1.0, None]], 1.0)[0]
    np.testing.assert_allclose(batch_advantages(rows, [0, 0, 0], reward), expected, rtol=1e-12)


def test_correctness_only_keeps_the_outcome_of_a_rollout_without_a_verdict() -> None:
    reward = DecoupledReward(on_unscored="correctness_only")
    found = batch_advantages([scored(kind, reward) for kind in "uafw"], [0] * 4, reward)
    expected = decoupled_advantages([[1, 1, 1, -1]], [[None, 0, -1, None]], 1.0)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_verdict_on_a_wrong_rollout_is_not_read() -> None:
    reward = DecoupledReward()
    wrong = ScoredRollout(
        scored("w", reward).rollout,
        False,
        VERDICTS["f"],
        PolicyScorer(reward, None).reward(scored("w", reward).rollout, False, VERDICTS["f"]),
    )
    found = batch_advantages([scored("a", reward), scored("f", reward), wrong], [0] * 3, reward)
    np.testing.assert_allclose(found, of("afw"), rtol=1e-12)


def test_other_rewards_keep_the_advantages_of_their_groups() -> None:
    rows = [scored(kind, DecoupledReward()) for kind in "afwu"]
    expected = group_advantages([[1.0, 0.0, -1.0, None]])[0]
    np.testing.assert_allclose(batch_advantages(rows, [0] * 4, FapoReward()), expected, rtol=1e-12)
    assert batch_advantages([], [], DecoupledReward()).shape == (0,)
