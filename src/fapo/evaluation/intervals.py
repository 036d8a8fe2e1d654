"""Confidence intervals of 95 % for rates, ratios and means.

One function for each way in which the data were drawn:

    wilson_interval             a rate k / n of independent rows
    difference_interval         a difference of two such rates of different rows
    f1_interval                 F1 of independent rows
    ratio_interval              a ratio of rows that come in groups, such as several answers to one question
    grouped_rate_interval       a rate of rows that may come in groups, of any number and size
    grouped_difference_interval a difference of two such rates
    grouped_f1_interval         F1 of such rows
    mean_interval               a mean over a few runs with different seeds
    bootstrap_ratios            bootstrap draws of several ratios of grouped rows that are compared with each other
    bootstrap_sums              bootstrap draws of sums over rows, for numbers that are no ratios
    resample_counts             bootstrap draws of counts of rows that may come in groups
    percentile_interval         any number, given its values in bootstrap draws

The functions are pure. An interval of a number that is not defined is (NaN, NaN).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean
from typing import Any

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
"""Confidence level of all intervals, unless a function takes another."""
NUM_RESAMPLES = 10_000
"""Number of bootstrap draws."""
SEED = 0
"""Seed of the bootstrap draws, so that the same data give the same interval."""
CHUNK = 500
"""Number of bootstrap draws that are made at once, which bounds the memory."""

Interval = tuple[float, float]
"""Lower and upper bound; both NaN where the number is not defined."""


@dataclass(frozen=True)
class Estimate:
    """A number with its interval."""

    value: float
    """Value; NaN where it is not defined."""
    interval: Interval
    """95 % interval."""


def wilson_interval(k: float, n: float, level: float = LEVEL) -> Interval:
    """Return Wilson's score interval of a rate.

    centre = (k + z^2/2) / (n + z^2), half width = z sqrt(k (n - k) / n + z^2/4) / (n + z^2), z the normal quantile of
    (1 + level) / 2. scipy has this interval for whole numbers only; `ratio_interval` needs it for an effective sample
    size. Source: Wilson 1927.

    Args:
        k: Number of rows that have the property; with an effective sample size a fraction.
        n: Number of rows.
        level: Confidence level in (0, 1).

    Returns:
        Bounds in [0, 1]; (0, 1) for n = 0.

    Raises:
        ValueError: Unless 0 <= k <= n and 0 < level < 1.
    """
    if not 0 <= k <= n:
        raise ValueError(f"k must lie between 0 and n={n}; got {k}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, for example 0.95; got {level}")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (k + z**2 / 2) / (n + z**2)
    half_width = z * math.sqrt(k * (n - k) / n + z**2 / 4) / (n + z**2)
    return (0.0 if k == 0 else max(0.0, centre - half_width)), (1.0 if k == n else min(1.0, centre + half_width))


def difference_interval(k: float, n: float, k_other: float, n_other: float) -> Interval:
    """Return the interval of a difference of two rates, k / n - k_other / n_other.

    With d the difference, p and q the rates and [l, u] their Wilson intervals, the bounds are
    d - sqrt((p - l_p)^2 + (u_q - q)^2) and d + sqrt((u_p - p)^2 + (q - l_q)^2). Source: Newcombe 1998, method 10.

    Args:
        k: Number of rows of the first sample that have the property.
        n: Number of rows of the first sample.
        k_other: Number of rows of the second sample that have the property.
        n_other: Number of rows of the second sample.

    Returns:
        Bounds in [-1, 1]; NaN, NaN if a sample is empty.

    Raises:
        ValueError: Unless 0 <= k <= n, in both samples.
    """
    around, around_other = wilson_interval(k, n), wilson_interval(k_other, n_other)
    if not (n and n_other):
        return math.nan, math.nan
    return _of_difference(k / n, around, k_other / n_other, around_other)


def _of_difference(p: float, around: Interval, q: float, around_other: Interval, correlation: float = 0.0) -> Interval:
    """Return the interval of p - q from those of p and q, and from the correlation of these two estimates."""
    (low, high), (low_other, high_other) = around, around_other
    rest = math.sqrt(1 - correlation**2)  # sqrt(x^2 + y^2 - 2 c x y) = hypot(x - c y, rest y)
    below, below_other, above, above_other = p - low, high_other - q, high - p, q - low_other
    return (
        p - q - math.hypot(below - correlation * below_other, rest * below_other),
        p - q + math.hypot(above - correlation * above_other, rest * above_other),
    )


def f1_interval(tp: int, fp: int, fn: int) -> Interval:
    """Return the interval of F1 = 2 tp / (2 tp + fp + fn), for independent rows.

    F1 is 2 q / (1 + q) with q = tp / (tp + fp + fn), the rate of rows with both flags among the rows with any. The
    bounds are those of Wilson's interval of q, transformed in the same way. Source: Jaccard index and F1 are monotone
    functions of each other.

    Args:
        tp: Number of true positives.
        fp: Number of false positives.
        fn: Number of false negatives.

    Returns:
        Bounds in [0, 1]; NaN, NaN without flawed rows, where F1 is not defined.

    Raises:
        ValueError: If a number is negative.
    """
    return _of_f1(wilson_interval(tp, tp + fp + fn), tp + fn)


def _of_f1(around: Interval, num_flawed: int) -> Interval:
    """Return the interval of F1 from that of tp / (tp + fp + fn); NaN, NaN without flawed rows."""
    low, high = around
    return (2 * low / (1 + low), 2 * high / (1 + high)) if num_flawed else (math.nan, math.nan)


def ratio_interval(
    numerators: npt.ArrayLike, denominators: npt.ArrayLike, *, is_rate: bool = True, level: float = LEVEL
) -> Interval:
    """Return the interval of r = sum(y) / sum(x), for rows that were drawn in groups.

    The variance of r is n / (n - 1) sum((y - r x)^2) / sum(x)^2. A rate gets Wilson's interval for the effective
    sample size r (1 - r) / variance, which is at most sum(x), and sum(x) where all groups agree. Where all rows agree,
    nothing is known about how alike the rows of a group are, and the size is the number of groups. Any other ratio gets
    r -+ z sqrt(variance). Source: the linearised ratio estimator of cluster samples.

    Args:
        numerators: y, summed within each group (for example the correct answers to a question), [num_groups].
        denominators: x, summed within each group, [num_groups].
        is_rate: Whether the ratio lies in [0, 1].
        level: Confidence level in (0, 1).

    Returns:
        Lower and upper bound; NaN, NaN for fewer than two groups or sum(x) = 0.

    Raises:
        ValueError: If the shapes are not [num_groups].
    """
    y, x = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if y.shape != x.shape or y.ndim != 1:
        raise ValueError(f"numerators and denominators must be [num_groups]; got {y.shape} and {x.shape}")
    if len(y) < 2 or x.sum() == 0:
        return math.nan, math.nan
    ratio = float(y.sum() / x.sum())
    variance = float(len(y) / (len(y) - 1) * ((y - ratio * x) ** 2).sum() / x.sum() ** 2)
    if is_rate:
        if variance:
            size = min(float(x.sum()), ratio * (1 - ratio) / variance)
        else:
            size = float((x > 0).sum() if ratio in (0, 1) else x.sum())
        return wilson_interval(ratio * size, size, level)
    half_width = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(variance)
    return ratio - half_width, ratio + half_width


def group_sums(values: npt.ArrayLike, groups: Sequence[Hashable], dtype: type = np.int64) -> npt.NDArray[Any]:
    """Return the sums of numbers within groups of rows.

    Args:
        values: Numbers of each row, [num_rows, ...].
        groups: Key of the group of each row, [num_rows].
        dtype: Type of the numbers; by default they are counts.

    Returns:
        Sums, [num_groups, ...], in the order in which the groups first appear.
    """
    numbers: dict[Hashable, int] = {}
    group_of = [numbers.setdefault(group, len(numbers)) for group in groups]
    counts: npt.NDArray[Any] = np.asarray(values, dtype=dtype)
    sums = np.zeros((len(numbers), *counts.shape[1:]), dtype=dtype)
    np.add.at(sums, group_of, counts)
    return sums


def grouped_rate_interval(hits: npt.ArrayLike, rows: npt.ArrayLike) -> Interval:
    """Return the interval of the rate sum(hits) / sum(rows), for rows that may come in groups.

    It is Wilson's where each group has at most one row, and otherwise that of `ratio_interval`. A single group of
    several rows counts as one row.

    Args:
        hits: Number of rows of each group that have the property, [num_groups].
        rows: Number of rows of each group, [num_groups].

    Returns:
        Bounds in [0, 1]; (0, 1) without rows.
    """
    sizes = np.asarray(rows, dtype=np.int64)
    k, n = int(np.sum(hits)), int(sizes.sum())
    if sizes.max(initial=0) <= 1:
        return wilson_interval(k, n)
    return ratio_interval(hits, sizes) if (sizes > 0).sum() > 1 else wilson_interval(k / n, 1)


def grouped_rate_estimate(hits: Sequence[bool], groups: Sequence[Hashable]) -> Estimate:
    """Return the rate of rows that have a property, for rows that may come in groups.

    Args:
        hits: Whether each row has the property, [num_rows].
        groups: Key of the group of each row, [num_rows].

    Returns:
        The rate with the interval of `grouped_rate_interval`; the value is NaN without rows.
    """
    sums = group_sums(np.column_stack([hits, np.ones(len(hits))]), groups)
    return Estimate(sum(hits) / len(hits) if hits else math.nan, grouped_rate_interval(*sums.T))


def grouped_difference_interval(
    hits: npt.ArrayLike, rows: npt.ArrayLike, hits_other: npt.ArrayLike, rows_other: npt.ArrayLike
) -> Interval:
    """Return the interval of a difference of two rates, for rows that may come in groups.

    It is that of `difference_interval` with the intervals of `grouped_rate_interval`, and with the correlation c of
    the two rates over the groups: sqrt(x^2 + y^2 - 2 c x y) takes the place of sqrt(x^2 + y^2). Where each group has
    one row, c is 0 and the interval is Newcombe's. Source: Newcombe 1998 for pairs, Zou and Donner 2008.

    Args:
        hits: Number of rows of the first kind that have the property, in each group, [num_groups].
        rows: Number of rows of the first kind in each group, [num_groups].
        hits_other: The same for the second kind, [num_groups].
        rows_other: Number of rows of the second kind in each group, [num_groups].

    Returns:
        Bounds in [-1, 1]; NaN, NaN if there are no rows of a kind.
    """
    of_one, of_other = (np.array(pair, dtype=np.int64) for pair in ((hits, rows), (hits_other, rows_other)))
    (k, n), (k_other, n_other) = of_one.sum(axis=1).tolist(), of_other.sum(axis=1).tolist()
    if not (n and n_other):
        return math.nan, math.nan
    # in whole numbers, so that groups that all agree have no correlation
    x, y = (
        (found * total - sizes * num).astype(float)
        for (found, sizes), num, total in ((of_one, k, n), (of_other, k_other, n_other))
    )
    spread = math.sqrt((x @ x) * (y @ y))
    correlation = max(-1.0, min(1.0, float(x @ y) / spread)) if spread else 0.0
    around, around_other = grouped_rate_interval(*of_one), grouped_rate_interval(*of_other)
    return _of_difference(k / n, around, k_other / n_other, around_other, correlation)


def grouped_f1_interval(tp: npt.ArrayLike, fp: npt.ArrayLike, fn: npt.ArrayLike) -> Interval:
    """Return the interval of F1 as `f1_interval` does, for rows that may come in groups.

    Args:
        tp: Number of true positives of each group, [num_groups].
        fp: Number of false positives of each group, [num_groups].
        fn: Number of false negatives of each group, [num_groups].

    Returns:
        Bounds in [0, 1]; NaN, NaN without flawed rows, where F1 is not defined.
    """
    found, wrongly, missed = (np.asarray(counts, dtype=np.int64) for counts in (tp, fp, fn))
    return _of_f1(grouped_rate_interval(found, found + wrongly + missed), int((found + missed).sum()))


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the interval of a mean over few seeds: mean -+ t s / sqrt(n), t of Student with n - 1 degrees of freedom.

    NaN, NaN for fewer than two values.
    """
    from scipy import stats  # takes half a second to import, and only reports on several seeds need it

    if len(values) < 2:
        return math.nan, math.nan
    half_width = float(stats.t.ppf((1 + LEVEL) / 2, len(values) - 1) * stats.sem(values))
    return fmean(values) - half_width, fmean(values) + half_width


def percentile_interval(
    values: npt.NDArray[np.float64],
    if_equal: Interval | None = None,
    rates: Sequence[npt.NDArray[np.float64]] = (),
) -> Interval:
    """Return the middle LEVEL of a number's values in bootstrap draws; draws in which it is NaN are left out.

    Args:
        values: Value in each draw, [num_draws].
        if_equal: Interval in closed form, which is returned where all draws are equal, of the number or of one of
            `rates`. They are so where the rows of a class are all alike, such as those of a judge that is always right;
            resampling cannot show that others may differ. None: such an interval has no width.
        rates: Rates of different rows that the number is made of, in the same draws, each [num_draws].

    Returns:
        Bounds; NaN, NaN if the number is NaN in all draws.
    """
    middle, *others = (_middle(drawn) for drawn in (values, *rates))
    if if_equal is None or math.isnan(middle[0]):
        return middle
    return if_equal if any(math.isclose(*ends, abs_tol=1e-12) for ends in (middle, *others)) else middle


def _middle(values: npt.NDArray[np.float64]) -> Interval:
    """Return the middle LEVEL of values without NaN; two equal ones may differ by the order in which sums were made."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return math.nan, math.nan
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def bootstrap_ratios(numerators: npt.ArrayLike, denominators: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return sum(numerators) / sum(denominators) of each column in bootstrap draws of rows.

    All columns are computed from the same draws, so that their differences are paired. A row is what was drawn at
    random, for example a question.

    Args:
        numerators: What each row adds to each numerator, [num_rows, num_ratios].
        denominators: What each row adds to each denominator, [num_rows, num_ratios]. 0 leaves the row out.

    Returns:
        Ratios, [num_draws, num_ratios]; NaN where a denominator is 0.
    """
    above, below = np.asarray(numerators, dtype=float), np.asarray(denominators, dtype=float)
    if not len(above):
        return np.full((1, above.shape[1]), np.nan)
    sums = bootstrap_sums(np.concatenate([above, below], axis=1), np.random.default_rng(SEED))
    numerator, total = np.split(sums, 2, axis=1)
    return np.where(total > 0, numerator / np.where(total > 0, total, 1), np.nan)


def bootstrap_sums(values: npt.ArrayLike, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return the sum of each column in bootstrap draws of rows; all columns have the same draws.

    Args:
        values: Numbers of each row, [num_rows, num_columns], at least one row.
        rng: Source of random numbers.

    Returns:
        Sums, [NUM_RESAMPLES, num_columns].
    """
    numbers = np.asarray(values, dtype=float)
    num = len(numbers)
    # How often each row is drawn. A matrix product with it costs less than gathering the drawn rows.
    chunks = (rng.multinomial(num, np.full(num, 1 / num), size=CHUNK) for _ in range(0, NUM_RESAMPLES, CHUNK))
    return np.concatenate([counts.astype(float) @ numbers for counts in chunks])


def resample_counts(counts: npt.ArrayLike, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return how many rows of each kind are in bootstrap draws of groups of rows.

    Groups with the same counts are alike, and to count the draws of each sort of group is one draw of a multinomial
    distribution. It costs the same for ten groups and for ten thousand.

    Args:
        counts: Number of rows of each kind in each group, [num_groups, num_kinds]. Independent rows are groups of one.
        rng: Source of random numbers.

    Returns:
        Number of rows of each kind in each draw, [num_kinds, NUM_RESAMPLES].
    """
    groups = np.asarray(counts, dtype=np.int64)
    # the groups of a single row are listed even if there are none, so that the draws of rows depend on their kinds only
    single = np.eye(groups.shape[1], dtype=np.int64)
    sorts, nums = np.unique(np.concatenate([single, groups]), axis=0, return_counts=True)
    sorts, nums = sorts[::-1], (nums - (sorts.sum(axis=1) == 1))[::-1]
    rates = nums / len(groups) if len(groups) else np.eye(len(sorts))[0]
    drawn: npt.NDArray[np.int64] = rng.multinomial(len(groups), rates, size=NUM_RESAMPLES) @ sorts
    return drawn.T


def percent(value: float, interval: Interval | None = None) -> str:
    """Return a rate and its interval as text.

    Args:
        value: Rate, a fraction.
        interval: Its interval, if it is shown.

    Returns:
        For example "33.3 % [6.1, 79.2]"; "-" for NaN.
    """
    if math.isnan(value):
        return "-"
    around = "" if interval is None else f" [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"
    return f"{100 * value:.1f} %{around}"


def percent_of(k: int, n: int) -> str:
    """Return the rate k / n of independent rows with its Wilson interval as text, as `percent` does."""
    return percent(k / n if n else math.nan, wilson_interval(k, n))


def signed_points(value: float, interval: Interval) -> str:
    """Return the difference of two rates and its interval as text, in percentage points.

    Args:
        value: Difference of two fractions.
        interval: Its interval.

    Returns:
        For example "+3.1 [-0.4, +6.2]"; "-" for NaN.
    """
    if math.isnan(value):
        return "-"
    low, high = (100 * bound for bound in interval)
    return f"{100 * value:+.1f} [{low:+.1f}, {high:+.1f}]"


def decimal(value: float, interval: Interval | None = None) -> str:
    """Return a number and its interval as text.

    Args:
        value: Number, such as Youden's J.
        interval: Its interval, if it is shown.

    Returns:
        For example "0.42 [0.10, 0.70]"; "-" for NaN.
    """
    if math.isnan(value):
        return "-"
    around = "" if interval is None else f" [{interval[0]:.2f}, {interval[1]:.2f}]"
    return f"{value:.2f}{around}"
