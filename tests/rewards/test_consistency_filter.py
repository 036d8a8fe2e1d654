"""The consistency filter, against tables, by its invariants, and on scored rollouts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.config.schema import FilterReward
from fapo.rewards.advantages import group_advantages
from fapo.rewards.consistency_filter import filtered_advantages, kept_rollouts
from fapo.rewards.scorer import PolicyScorer, batch_advantages
from fapo.types import Problem, Rollout, ScoredRollout, Verdict

OUTCOME = {"a": 1.0, "f": 1.0, "w": -1.0, "u": math.nan}


def masks(group: str) -> tuple[list[list[bool]], list[list[bool]]]:
    """Return which rollouts of a group are fully correct (a) and wrong (w); f is flawed, u unscored."""
    return [[k == "a" for k in group]], [[k == "w" for k in group]]


@pytest.mark.parametrize(
    ("group", "keep", "kept"),
    [
        ("aawwaaww", 4, "11110000"),
        ("aaaaaaww", 4, "11000011"),
        ("awwwwwww", 4, "11110000"),
        ("afffwwww", 4, "10001110"),
        ("aaaaaaaa", 4, "11110000"),
        ("ffffffff", 4, "00000000"),
        ("ffffwwww", 4, "00001111"),
        ("uaawwwwu", 4, "01111000"),
        ("aaaww", 3, "10011"),
        ("aw", 2, "11"),
    ],
)
def test_which_rollouts_are_kept(group: str, keep: int, kept: str) -> None:
    assert kept_rollouts(*masks(group), keep)[0].tolist() == [k == "1" for k in kept]


groups = st.text("afwu", min_size=1, max_size=16)


@given(groups, st.integers(2, 16))
def test_invariants(group: str, keep: int) -> None:
    sound, wrong = masks(group)
    kept = kept_rollouts(sound, wrong, keep)[0]
    right, false = (int(kept[np.array(mask[0])].sum()) for mask in (sound, wrong))
    assert right + false == kept.sum() == min(keep, group.count("a") + group.count("w")), "as many as there are"
    if right < keep // 2:
        assert right == group.count("a"), "no fully correct rollout is dropped while there are too few"
    if false < keep - keep // 2:
        assert false == group.count("w")
    found = filtered_advantages([[OUTCOME[k] for k in group]], sound, wrong, keep)[0]
    assert (found[~kept] == 0).all()
    assert found.sum() == pytest.approx(0, abs=1e-9)
    expected = group_advantages([[OUTCOME[k] if own else None for k, own in zip(group, kept, strict=True)]])[0]
    np.testing.assert_array_equal(found, expected)
    if keep >= len(group) and "f" not in group:
        np.testing.assert_array_equal(found, group_advantages([[OUTCOME[k] for k in group]])[0])


VERDICTS = {"a": Verdict.from_step(None), "f": Verdict.from_step(1), "u": Verdict("failed", reason="no answer")}


def scored(kind: str, reward: FilterReward, num_tokens: int = 1) -> ScoredRollout:
    """Return a rollout of a class, scored as in training."""
    rollout, verdict = Rollout(Problem("p", "", "1"), "x", num_tokens), VERDICTS.get(kind)
    made = PolicyScorer(reward, None, 100).reward(rollout, kind != "w", verdict)
    return ScoredRollout(rollout, kind != "w", verdict, made)


def test_scored_rollouts_of_groups_in_any_order() -> None:
    reward = FilterReward(keep=2)
    names, kinds = [*"xyxxyyxx"], [*"fwawauwa"]  # x: f a w w a, y: w a u
    found = batch_advantages([scored(kind, reward) for kind in kinds], names, reward)
    half = math.sqrt(0.5)
    np.testing.assert_allclose(found, [0, -half, half, -half, half, 0, 0, 0], rtol=2e-4)
    assert [scored(kind, reward).reward.value for kind in "afwu"] == [1.0, 0.0, -1.0, None]


def test_the_length_penalty_belongs_to_the_outcome() -> None:
    reward = FilterReward(keep=4, overlong_buffer=50)
    rows = [scored(kind, reward, num_tokens) for kind, num_tokens in [("a", 1), ("a", 75), ("f", 80), ("w", 100)]]
    expected = group_advantages([[1.0, 0.5, None, -2.0]])[0]
    np.testing.assert_allclose(batch_advantages(rows, [0] * 4, reward), expected, rtol=1e-12)


def test_correctness_only_keeps_a_rollout_without_a_verdict() -> None:
    reward = FilterReward(keep=4, on_unscored="correctness_only")
    found = batch_advantages([scored(kind, reward) for kind in "ufww"], [0] * 4, reward)
    np.testing.assert_allclose(found, group_advantages([[1.0, None, -1.0, -1.0]])[0], rtol=1e-12)
