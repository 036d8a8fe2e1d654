"""Rewards of a policy, against tables and as means over the errors of a judge."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.rewards.advantages import group_advantages
from fapo.rewards.policy import corrected_reward, fapo_reward, overlong_penalty, step_ratio_reward
from fapo.rewards.theory import fapo_mean, shift_ratio


@pytest.mark.parametrize(
    ("correct", "flawed", "penalty", "expected"),
    [
        (True, False, 1.0, 1.0),
        (True, True, 1.0, 0.0),
        (True, True, 0.0, 1.0),
        (True, True, 2.0, -1.0),
        (True, True, 0.5, 0.5),
        (True, None, 1.0, None),
        (True, None, 0.0, None),
        (False, True, 1.0, -1.0),
        (False, False, 1.0, -1.0),
        (False, None, 1.0, -1.0),
    ],
)
def test_fapo_reward(correct: bool, flawed: bool | None, penalty: float, expected: float | None) -> None:
    assert fapo_reward(correct, flawed, penalty) == expected


@pytest.mark.parametrize("penalty", [-0.1, math.inf, math.nan])
def test_penalty_must_be_finite_and_not_negative(penalty: float) -> None:
    for call in (lambda: fapo_reward(True, True, penalty), lambda: shift_ratio(penalty)):
        with pytest.raises(ValueError, match="penalty"):
            call()


rates = st.tuples(st.floats(0.05, 1), st.floats(0, 0.95)).filter(lambda pair: pair[0] > pair[1] + 0.01)


@given(st.floats(0, 3), rates)
def test_the_mean_of_the_corrected_reward_is_the_fapo_reward(penalty: float, judge: tuple[float, float]) -> None:
    recall, rate = judge
    flagged, cleared = (corrected_reward(True, flawed, penalty, recall, rate) for flawed in (True, False))
    assert recall * flagged + (1 - recall) * cleared == pytest.approx(1 - penalty, abs=1e-6)
    assert rate * flagged + (1 - rate) * cleared == pytest.approx(1, abs=1e-6)


@given(st.booleans(), st.none() | st.booleans(), st.floats(0, 3))
def test_a_judge_without_errors_needs_no_correction(correct: bool, flawed: bool | None, penalty: float) -> None:
    assert corrected_reward(correct, flawed, penalty, 1.0, 0.0) == fapo_reward(correct, flawed, penalty)


@given(st.floats(0, 3), st.floats(0.01, 1), st.floats(0, 0.9))
def test_the_forward_correction_is_a_case_of_the_corrected_reward(penalty: float, recall: float, rate: float) -> None:
    flagged, cleared = (corrected_reward(True, flawed, penalty * (1 - rate), 1.0, rate) for flawed in (True, False))
    assert flagged == pytest.approx(1 - penalty * (1 - rate))
    assert cleared == pytest.approx(1 + penalty * rate)
    assert rate * flagged + (1 - rate) * cleared == pytest.approx(1)
    assert recall * flagged + (1 - recall) * cleared == pytest.approx(1 - penalty * (recall - rate))
    if recall > rate + 0.01:  # the same numbers as the other correction with a penalty of lambda J
        scaled = penalty * (recall - rate)
        assert flagged == pytest.approx(corrected_reward(True, True, scaled, recall, rate))
        assert cleared == pytest.approx(corrected_reward(True, False, scaled, recall, rate))


def test_a_judge_without_information_cannot_be_corrected() -> None:
    with pytest.raises(ValueError, match="recall must be above the false positive rate"):
        corrected_reward(True, True, 1.0, 0.3, 0.3)


@pytest.mark.parametrize(
    ("correct", "error_step", "num_steps", "expected"),
    [
        (True, None, 4, 2.0),
        (True, 0, 4, 1.0),
        (True, 3, 4, 1.75),
        (False, None, 4, 0.0),
        (False, 0, 4, -1.0),
        (False, 2, 4, -0.5),
    ],
)
def test_step_ratio_reward(correct: bool, error_step: int | None, num_steps: int, expected: float) -> None:
    assert step_ratio_reward(correct, error_step is not None, error_step, num_steps) == expected


@given(st.lists(st.tuples(st.booleans(), st.none() | st.integers(0, 3)), min_size=1, max_size=12))
def test_the_mean_of_the_step_ratio_and_where_it_discourages_a_flaw(rows: list[tuple[bool, int | None]]) -> None:
    found = [step_ratio_reward(correct, step is not None, step, 4) for correct, step in rows]
    rewards = [value for value in found if value is not None]
    assert len(rewards) == len(rows)
    ratios = [1 if step is None else step / 4 for _, step in rows]
    beta = sum(not correct for correct, _ in rows) / len(rows)
    mean = fapo_mean(0, beta, 0) + sum(ratios) / len(rows)
    assert sum(rewards) / len(rows) == pytest.approx(mean)
    advantages = group_advantages([rewards])[0]
    for (correct, step), ratio, advantage in zip(rows, ratios, advantages, strict=True):
        if correct and step is not None and abs(1 + ratio - mean) > 1e-9:
            assert (advantage < 0) == (1 + ratio < mean)


@pytest.mark.parametrize("correct", [True, False])
@pytest.mark.parametrize("flawed", [None, True])
def test_step_ratio_reward_without_a_verdict_or_a_step_is_unscored(correct: bool, flawed: bool | None) -> None:
    assert step_ratio_reward(correct, flawed, None, 4) is None


@pytest.mark.parametrize(
    ("num_tokens", "max_tokens", "buffer", "expected"),
    [
        (0, 100, 40, 0.0),
        (60, 100, 40, 0.0),
        (61, 100, 40, -1 / 40),
        (80, 100, 40, -0.5),
        (100, 100, 40, -1.0),
        (500, 100, 40, -1.0),
        (500, 100, 0, 0.0),
        (50, 100, 100, -0.5),
    ],
)
def test_overlong_penalty(num_tokens: int, max_tokens: int, buffer: int, expected: float) -> None:
    assert overlong_penalty(num_tokens, max_tokens, buffer) == expected


@pytest.mark.parametrize("buffer", [-1, 101])
def test_overlong_buffer_must_fit_the_limit(buffer: int) -> None:
    with pytest.raises(ValueError, match="buffer"):
        overlong_penalty(10, 100, buffer)
