"""Confidence intervals: known values, parity with scipy, and coverage of the true value."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fapo.evaluation.intervals import (
    NUM_RESAMPLES,
    difference_interval,
    f1_interval,
    group_sums,
    grouped_difference_interval,
    grouped_f1_interval,
    grouped_rate_estimate,
    grouped_rate_interval,
    mean_interval,
    percent_of,
    ratio_interval,
    resample_counts,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("k", "n", "level", "expected"),
    [
        (0, 0, 0.95, (0.0, 1.0)),
        (0, 10, 0.95, (0.0, 0.277533)),
        (10, 10, 0.95, (0.722467, 1.0)),
        (5, 10, 0.95, (0.236593, 0.763407)),
        (1, 1, 0.95, (0.206549, 1.0)),
        (50, 100, 0.99, (0.375280, 0.624720)),
    ],
)
def test_wilson_interval(k: int, n: int, level: float, expected: tuple[float, float]) -> None:
    assert wilson_interval(k, n, level) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("k", "n", "text"), [(5, 10, "50.0 % [23.7, 76.3]"), (0, 10, "0.0 % [0.0, 27.8]"), (0, 0, "-")]
)
def test_a_rate_and_its_interval(k: int, n: int, text: str) -> None:
    found = grouped_rate_estimate([row < k for row in range(n)], range(n))
    assert (found.value, found.interval) == (
        pytest.approx(k / n if n else math.nan, nan_ok=True),
        wilson_interval(k, n),
    )
    assert percent_of(k, n) == text


@given(st.integers(1, 500), st.data())
def test_wilson_bounds_are_where_the_score_test_turns(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    low, high = wilson_interval(k, n)
    assert 0 <= low <= k / n <= high <= 1
    for bound in {low, high} - {0.0, 1.0}:
        score = abs(k / n - bound) / math.sqrt(bound * (1 - bound) / n)
        assert score == pytest.approx(1.959964, abs=1e-4)
    assert wilson_interval(n - k, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@pytest.mark.parametrize(("k", "n", "level"), [(-1, 3, 0.95), (4, 3, 0.95), (1, 3, 0.0), (1, 3, 95)])
def test_wilson_rejects(k: int, n: int, level: float) -> None:
    with pytest.raises(ValueError, match="must lie between"):
        wilson_interval(k, n, level)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((56, 70, 48, 80), (0.0524, 0.3339)), ((9, 10, 3, 10), (0.1705, 0.8090)), ((10, 10, 0, 10), (0.6075, 1.0))],
)
def test_the_interval_of_a_difference_is_newcombes(counts: tuple[int, ...], expected: tuple[float, float]) -> None:
    assert difference_interval(*counts) == pytest.approx(expected, abs=5e-5)  # the table of his article


@given(st.integers(1, 200), st.integers(1, 200), st.data())
def test_the_interval_of_a_difference_turns_with_its_sign(n: int, m: int, data: st.DataObject) -> None:
    k, j = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    low, high = difference_interval(k, n, j, m)
    assert -1 <= low <= k / n - j / m <= high <= 1
    assert difference_interval(j, m, k, n) == pytest.approx((-high, -low), abs=1e-12)
    assert all(map(math.isnan, difference_interval(0, 0, j, m)))


COUNT = st.integers(0, 300)


@given(COUNT, COUNT, COUNT)
def test_the_interval_of_f1_holds_it_and_is_that_of_the_rate_behind_it(tp: int, fp: int, fn: int) -> None:
    low, high = f1_interval(tp, fp, fn)
    if tp + fn == 0:
        assert math.isnan(low) and math.isnan(high)
        return
    assert 0 <= low <= 2 * tp / (2 * tp + fp + fn) <= high <= 1
    for bound, of_rate in zip((low, high), wilson_interval(tp, tp + fp + fn), strict=True):
        assert bound / (2 - bound) == pytest.approx(of_rate)
    if tp == 0:
        assert high > 0, "a judge without a true positive may still find some"


@pytest.mark.parametrize("rates", [(0.2, 0.05, 0.05), (0.05, 0.1, 0.3), (0.3, 0.01, 0.02)])
def test_the_interval_of_f1_covers_the_true_value(rates: tuple[float, float, float]) -> None:
    """Rates of true positives, false positives and misses among 128 rows."""
    true, (tp, fp, fn) = 2 * rates[0] / (2 * rates[0] + rates[1] + rates[2]), range(3)
    drawn = np.random.default_rng(0).multinomial(128, [*rates, 1 - sum(rates)], 2000).tolist()
    covered = [low <= true <= high for row in drawn for low, high in [f1_interval(row[tp], row[fp], row[fn])]]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.025)


@given(st.lists(st.booleans(), min_size=2, max_size=60))
def test_one_answer_to_each_question_is_wilsons_interval(right: list[bool]) -> None:
    found = ratio_interval(right, [1] * len(right))
    k, n = sum(right), len(right)
    # the estimate of the variance has Bessel's correction, so the effective size is n - 1 at most
    assert found == pytest.approx(wilson_interval(k / n * (n - 1), n - 1) if 0 < k < n else wilson_interval(k, n))


def test_answers_that_agree_within_a_question_count_once() -> None:
    right = np.arange(40) % 4 != 0
    alike = ratio_interval(right * 8.0, np.full(40, 8.0))
    assert alike == pytest.approx(ratio_interval(right, np.ones(40)))
    low, high = ratio_interval(np.full(40, 6.0), np.full(40, 8.0))
    assert low == pytest.approx(wilson_interval(240, 320)[0]) and high - low < alike[1] - alike[0]


def test_rows_that_all_agree_count_once_for_each_question() -> None:
    assert ratio_interval([0] * 20, [16] * 20) == wilson_interval(0, 20)
    assert ratio_interval([16] * 20 + [0], [16] * 20 + [0]) == wilson_interval(20, 20)


def test_rows_that_may_come_in_groups() -> None:
    assert grouped_rate_interval([1, 0, 0, 0], [1, 1, 0, 1]) == wilson_interval(1, 3)
    assert grouped_rate_interval([4, 0, 1], [4, 4, 2]) == ratio_interval([4, 0, 1], [4, 4, 2])
    assert grouped_rate_interval([3], [4]) == wilson_interval(0.75, 1), "one question is one row"
    assert grouped_rate_interval([3, 0], [4, 0]) == wilson_interval(0.75, 1), "nor does a question without rows count"
    assert grouped_rate_interval([], []) == (0, 1)


def test_rows_are_summed_within_their_group() -> None:
    assert group_sums([(1, 0), (0, 1), (1, 1), (2, 0)], ["b", "a", "b", "c"]).tolist() == [[2, 1], [0, 1], [2, 0]]
    assert grouped_rate_estimate([True, False, True], ["a", "a", "b"]).interval == ratio_interval([1, 1], [2, 1])


COUNTS = st.lists(st.integers(0, 3), max_size=60)
"""Rows as indices into (true positive, false positive, false negative, true negative)."""


@given(COUNTS)
def test_groups_of_one_row_are_independent_rows(kinds: list[int]) -> None:
    tp, fp, fn, tn = np.eye(4, dtype=int)[kinds].T
    k = [kinds.count(kind) for kind in range(4)]
    found = grouped_difference_interval(tp, tp + fn, fp, fp + tn)
    assert found == pytest.approx(difference_interval(k[0], k[0] + k[2], k[1], k[1] + k[3]), rel=0, abs=0, nan_ok=True)
    assert grouped_f1_interval(tp, fp, fn) == pytest.approx(f1_interval(*k[:3]), rel=0, abs=0, nan_ok=True)
    drawn = resample_counts(np.eye(4)[kinds], np.random.default_rng(0))
    rates = [count / len(kinds) for count in k] if kinds else [1.0, 0.0, 0.0, 0.0]
    assert np.array_equal(drawn, np.random.default_rng(0).multinomial(len(kinds), rates, size=NUM_RESAMPLES).T)


@given(st.lists(st.integers(1, 40), min_size=4, max_size=4), st.integers(2, 9))
def test_copies_of_a_row_in_one_group_are_no_further_rows(k: list[int], num_copies: int) -> None:
    tp, fp, fn, tn = np.repeat(np.eye(4, dtype=int), k, axis=0).T * num_copies
    size = 1 - 1 / sum(k)  # Bessel's correction takes one group off the effective number
    rates = [(k[0], k[0] + k[2]), (k[1], k[1] + k[3])]
    newcombe = difference_interval(*(size * count for rate in rates for count in rate))
    assert grouped_difference_interval(tp, tp + fn, fp, fp + tn) == pytest.approx(newcombe)
    low, high = wilson_interval(k[0] * size, sum(k[:3]) * size)
    assert grouped_f1_interval(tp, fp, fn) == pytest.approx((2 * low / (1 + low), 2 * high / (1 + high)))
    single, copied = (
        resample_counts(num * np.repeat(np.eye(4), k, axis=0), np.random.default_rng(0)) for num in (1, num_copies)
    )
    assert np.std(copied, axis=1) == pytest.approx(num_copies * np.std(single, axis=1), rel=0.05)


def test_a_difference_within_groups_is_narrower_if_both_rates_move_together() -> None:
    hits = np.array([0, 1, 2, 3, 4] * 8)
    apart = difference_interval(80, 160, 80, 160)
    together = grouped_difference_interval(hits, np.full(40, 4), hits, np.full(40, 4))
    against = grouped_difference_interval(hits, np.full(40, 4), 4 - hits, np.full(40, 4))
    assert together == pytest.approx((0, 0), abs=1e-9)
    assert against[1] - against[0] > 1.9 * (apart[1] - apart[0])
    assert -1 <= against[0] <= 0 <= against[1] <= 1
    assert all(map(math.isnan, grouped_difference_interval([1], [2], [0], [0])))


def test_the_interval_of_a_difference_within_groups_holds_the_truth_as_often_as_it_says() -> None:
    """A judge flags some questions whatever it reads, and understands others, so that its two rates are correlated."""
    draw = np.random.default_rng(0)
    held = {"grouped": 0, "independent rows": 0}
    for _ in range(500):
        flags = draw.beta(1, 1, size=100)  # the rate at which it flags answers to a question
        skill = draw.random(100) < 0.5  # it never flags right answers where it understands the question
        flawed = draw.binomial(8, 0.5, size=100)
        tp, fp = draw.binomial(flawed, flags), draw.binomial(8 - flawed, np.where(skill, 0, flags))
        low, high = grouped_difference_interval(tp, flawed, fp, 8 - flawed)
        held["grouped"] += low <= 0.25 <= high
        low, high = difference_interval(tp.sum(), flawed.sum(), fp.sum(), (8 - flawed).sum())
        held["independent rows"] += low <= 0.25 <= high
    assert 0.92 <= held["grouped"] / 500 <= 0.98
    assert held["independent rows"] / 500 < 0.92


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    draw = np.random.default_rng(0)
    held = 0
    for _ in range(500):
        ease = draw.beta(2, 1, size=100)  # questions differ, so answers to one are alike
        right = draw.binomial(8, ease)
        low, high = ratio_interval(right, np.full(100, 8.0))
        held += low <= 2 / 3 <= high
    assert 0.92 <= held / 500 <= 0.98


def test_a_length_and_what_cannot_be_known() -> None:
    low, high = ratio_interval([10, 20, 30], [1, 1, 1], is_rate=False)
    assert (low + high) / 2 == pytest.approx(20) and high - 20 == pytest.approx(1.959964 * 10 / math.sqrt(3))
    for nothing in (([], []), ([1], [2]), ([0, 0], [0, 0])):
        assert all(map(math.isnan, ratio_interval(*nothing)))
    with pytest.raises(ValueError, match="num_groups"):
        ratio_interval([1, 2], [1])


@given(st.integers(1, 300), st.data())
def test_wilson_interval_is_that_of_scipy(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    level = data.draw(st.sampled_from([0.9, 0.95, 0.99]))
    expected = stats.binomtest(k, n).proportion_ci(level, method="wilson")
    assert wilson_interval(k, n, level) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize(
    ("num", "quantile"), [(2, 12.706205), (3, 4.302653), (11, 2.228139), (12, 2.200985), (31, 2.042272)]
)
def test_few_seeds_have_wide_intervals(num: int, quantile: float) -> None:
    values = [float(i) for i in range(num)]
    low, high = mean_interval(values)
    assert (low + high) / 2 == pytest.approx(np.mean(values))
    assert high - low == pytest.approx(2 * quantile * np.std(values, ddof=1) / math.sqrt(num), rel=1e-6)
    assert all(map(math.isnan, mean_interval([1.0])))
