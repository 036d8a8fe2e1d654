"""The metrics of a policy against hand-counted tables and exhaustive counts."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.evaluation import metrics as m

NAN = math.nan


@given(st.integers(1, 8), st.data())
def test_pass_at_k_equals_counting_every_draw(n: int, data: st.DataObject) -> None:
    num_correct, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    draws = list(itertools.combinations(range(n), k))
    hits = sum(min(draw) < num_correct for draw in draws)
    assert m.pass_at_k(num_correct, n, k) == pytest.approx(hits / len(draws))


@pytest.mark.parametrize(("num_correct", "n", "k"), [(1, 4, 0), (1, 4, 5), (-1, 4, 2), (5, 4, 2)])
def test_pass_at_k_rejects(num_correct: int, n: int, k: int) -> None:
    with pytest.raises(ValueError, match="must lie between"):
        m.pass_at_k(num_correct, n, k)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [(["a"], "a"), (["a", "b", "b"], "b"), (["b", "a", "a", "b"], "b"), ([None, 3, None], None)],
)
def test_majority_vote(labels: list[Any], expected: Any) -> None:
    assert m.majority_vote(labels) == expected


def test_majority_vote_needs_labels() -> None:
    with pytest.raises(ValueError, match="at least one"):
        m.majority_vote([])


@pytest.mark.parametrize(
    ("num_flawed", "num_correct", "num_rollouts", "ratio", "reliable"),
    [(3, 10, 20, 0.3, 0.35), (0, 10, 10, 0.0, 1.0), (10, 10, 10, 1.0, 0.0), (0, 0, 10, NAN, 0.0), (0, 0, 0, NAN, NAN)],
)
def test_fp_ratio_and_reliable_accuracy(
    num_flawed: int, num_correct: int, num_rollouts: int, ratio: float, reliable: float
) -> None:
    assert m.fp_ratio(num_flawed, num_correct) == pytest.approx(ratio, nan_ok=True)
    assert m.reliable_accuracy(num_flawed, num_correct, num_rollouts) == pytest.approx(reliable, nan_ok=True)


def test_fp_ratio_rejects_impossible_counts() -> None:
    with pytest.raises(ValueError, match="num_flawed"):
        m.fp_ratio(3, 2)
    with pytest.raises(ValueError, match="num_flawed"):
        m.reliable_accuracy(-1, 2, 3)
    with pytest.raises(ValueError, match="num_rollouts"):
        m.reliable_accuracy(1, 4, 3)
