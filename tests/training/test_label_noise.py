"""Label noise: which labels become wrong, and how."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.errors import ConfigError
from fapo.training.critic_data.label_noise import with_label_noise
from fapo.types import LabelledSolution, Problem


@st.composite
def solutions(draw: st.DrawFn) -> list[LabelledSolution]:
    sizes = draw(st.lists(st.integers(1, 5), max_size=30))
    labels = [draw(st.none() | st.integers(0, size - 1)) for size in sizes]
    return [
        LabelledSolution(Problem(str(i), "p", "1"), ("x",) * size, label, True)
        for i, (size, label) in enumerate(zip(sizes, labels, strict=True))
    ]


@given(solutions(), st.floats(0, 1), st.integers(0, 3))
def test_the_given_rate_of_labels_becomes_wrong(given: list[LabelledSolution], rate: float, seed: int) -> None:
    noisy = with_label_noise(given, rate, seed)
    assert noisy == with_label_noise(given, rate, seed)
    changed = [i for i, solution in enumerate(noisy) if solution.training_label != given[i].error_step]
    assert len(changed) == round(rate * len(given))
    assert [(s.problem, s.steps, s.error_step) for s in noisy] == [(s.problem, s.steps, s.error_step) for s in given]
    assert all(s.training_label is None or 0 <= s.training_label < len(s.steps) for s in noisy)
    all_wrong = with_label_noise(given, 1.0, seed)
    assert all(noisy[i] == all_wrong[i] for i in changed), (
        "a higher rate changes the same labels in the same way, and others"
    )


def test_label_noise_misses_errors_invents_them_and_moves_them() -> None:
    given = [LabelledSolution(Problem(str(i), "p", "1"), ("x",) * 4, i % 2 or None, True) for i in range(400)]
    kinds = Counter((solution.error_step, solution.training_label) for solution in with_label_noise(given, 1.0, 0))
    assert 70 <= kinds[1, None] <= 130
    assert all(40 > kinds[1, step] > 15 for step in (0, 2, 3))
    assert all(30 < kinds[None, step] < 70 for step in range(4))


@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_a_rate_is_from_0_to_1(rate: float) -> None:
    with pytest.raises(ConfigError, match="from 0 to 1"):
        with_label_noise([], rate, 0)
