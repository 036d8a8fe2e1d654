"""Rewards of a GenRM."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fapo.rewards.genrm import genrm_outcome_reward, genrm_reward


@pytest.mark.parametrize(
    ("error_step", "label", "num_steps", "expected"),
    [
        (None, None, 5, 1.0),
        (2, 2, 5, 1.0),
        (0, 4, 5, 0.2),
        (4, 0, 5, 0.2),
        (1, 2, 5, 0.8),
        (None, 2, 5, -1.0),
        (2, None, 5, -1.0),
        (0, 0, 1, 1.0),
    ],
)
def test_genrm_reward(error_step: int | None, label: int | None, num_steps: int, expected: float) -> None:
    flawed = error_step is not None
    assert genrm_reward(flawed, error_step, label, num_steps) == pytest.approx(expected, abs=1e-15)
    assert genrm_outcome_reward(flawed, label is not None) == (1.0 if expected > 0 else -1.0)


@pytest.mark.parametrize("label", [None, 2])
def test_genrm_without_a_verdict_earns_minus_one(label: int | None) -> None:
    assert genrm_reward(None, None, label, 5) == -1.0
    assert genrm_outcome_reward(None, label is not None) == -1.0


@pytest.mark.parametrize("label", [None, 2])
def test_a_flag_without_a_step_has_no_step_reward(label: int | None) -> None:
    assert genrm_outcome_reward(True, label is not None) == (-1.0 if label is None else 1.0)
    with pytest.raises(ValueError, match="needs the step of its error"):
        genrm_reward(True, None, label, 5)


@pytest.mark.parametrize(("error_step", "label", "num_steps"), [(5, 2, 5), (2, 5, 5), (-1, 2, 5), (None, None, 0)])
def test_genrm_steps_must_be_inside_the_solution(error_step: int | None, label: int | None, num_steps: int) -> None:
    with pytest.raises(ValueError, match="steps"):
        genrm_reward(error_step is not None, error_step, label, num_steps)


@given(st.integers(1, 60), st.data())
def test_genrm_reward_ranks_by_distance_and_never_below_a_wrong_label(num_steps: int, data: st.DataObject) -> None:
    step = st.integers(0, num_steps - 1)
    reference, near, far = data.draw(step), data.draw(step), data.draw(step)
    assume(abs(near - reference) < abs(far - reference))
    rewards = [genrm_reward(p is not None, p, reference, num_steps) for p in (reference, near, far, None)]
    assert rewards[0] == 1.0 >= rewards[1] > rewards[2] > 1 / num_steps - 1e-12
    assert rewards[3] == -1.0
