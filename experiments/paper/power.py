"""Power of a paired t test: the smallest difference that some seeds find, and the seeds that a difference needs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from statistics import fmean, stdev

POWER = 0.8
"""Probability with which a test shall find a difference that is there."""
MAX_SEEDS = 1000
"""Largest number of seeds that `seeds_needed` returns."""


@cache
def detectable_effect(n: int, level: float = 0.05) -> float:
    """Return the smallest mean, in standard deviations, that a two-sided t test of n values finds with rate POWER."""
    from scipy import optimize

    high = 0.05
    while _power(high, n, level) < POWER:  # scipy's distribution is not defined far above the effect that is looked for
        high *= 1.5
    return float(optimize.brentq(lambda effect: _power(effect, n, level) - POWER, high / 1.5, high, xtol=1e-6))


def seeds_needed(values: Sequence[float], level: float = 0.05) -> int | None:
    """Return how many seeds a two-sided t test needs to find a mean like that of some seeds with rate POWER.

    Args:
        values: Difference of each seed, at least two.
        level: Significance level of the test.

    Returns:
        Number of seeds, at least two, if mean and standard deviation are those of `values`; None if there are more than
        MAX_SEEDS.
    """
    spread = stdev(values)
    effect = abs(fmean(values)) / spread if spread else float("inf")
    low, high = 2, 2
    while high <= MAX_SEEDS and detectable_effect(high, level) > effect:
        low, high = high, 2 * high
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if detectable_effect(middle, level) <= effect else (middle + 1, high)
    return low if low <= MAX_SEEDS else None


def _power(effect: float, n: int, level: float) -> float:
    """Return the probability that a two-sided t test of n values finds this positive effect, with the right sign."""
    from scipy import stats

    return float(stats.nct.sf(stats.t.ppf(1 - level / 2, n - 1), n - 1, effect * n**0.5))
