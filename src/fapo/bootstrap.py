"""Intervals by drawing rows with replacement. Pure functions."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

NUM_RESAMPLES = 10_000
SEED = 0
LEVEL = 0.95
CHUNK = 500
"""Draws made at once, for flat memory."""

Interval = tuple[float, float]
"""Low and high end; both NaN where the number is not defined."""


def interval(values: npt.NDArray[np.float64]) -> Interval:
    """The middle LEVEL of a number's values in all draws; draws in which it is not defined (NaN) are left out."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return math.nan, math.nan
    low, high = np.quantile(defined, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def ratio_intervals(parts: npt.ArrayLike, wholes: npt.ArrayLike) -> list[Interval]:
    """Intervals of sum(parts) / sum(wholes), a number for each column of the [num_rows, num_numbers] arrays.

    All numbers are computed from the same draws of as many rows; a whole of 0 leaves its row out of that number.
    """
    above, below = np.asarray(parts, dtype=float), np.asarray(wholes, dtype=float)
    num, rng = len(above), np.random.default_rng(SEED)
    ratios = []
    for _ in range(0, NUM_RESAMPLES if num else 0, CHUNK):
        counts = rng.multinomial(num, np.full(num, 1 / num), size=CHUNK).astype(float)
        total = counts @ below
        ratios.append(np.where(total > 0, counts @ above / np.where(total > 0, total, 1), np.nan))
    drawn = np.concatenate(ratios) if ratios else np.full((1, above.shape[1]), np.nan)
    return [interval(column) for column in drawn.T]
