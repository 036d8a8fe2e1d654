"""Metrics of a policy. Pure functions; a rate is a fraction in [0, 1], and NaN for an empty denominator."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TypeVar

from fapo.judge.quality import ratio

Label = TypeVar("Label", bound=Hashable)


def pass_at_k(num_correct: int, n: int, k: int) -> float:
    """Return the probability that k of n samples hold a correct one: 1 - C(n - c, k) / C(n, k).

    The k samples are drawn without replacement. This is the unbiased estimate for one problem; average it over
    problems. Source: Chen et al. 2021 (pass@k).

    Args:
        num_correct: c, number of samples with a correct answer.
        n: Number of samples.
        k: Number of samples that are drawn.

    Returns:
        A probability; for k = 1 it is num_correct / n.

    Raises:
        ValueError: Unless 1 <= k <= n and 0 <= num_correct <= n.
    """
    if not 1 <= k <= n:
        raise ValueError(f"k must lie between 1 and the number of samples n={n}; got {k}")
    if not 0 <= num_correct <= n:
        raise ValueError(f"num_correct must lie between 0 and n={n}; got {num_correct}")
    return 1.0 - math.comb(n - num_correct, k) / math.comb(n, k)


def majority_vote(labels: Sequence[Label]) -> Label:
    """Return the most frequent label, or the first one among equals; raise ValueError without labels."""
    if not labels:
        raise ValueError("a vote needs at least one label")
    return Counter(labels).most_common(1)[0][0]


def fp_ratio(num_flawed: int, num_correct: int) -> float:
    """Return flawed positives / rollouts with a correct answer.

    Args:
        num_flawed: Number of flawed positives.
        num_correct: Number of rollouts with a correct answer and a verdict.

    Returns:
        A rate; NaN when no answer is correct.

    Raises:
        ValueError: Unless 0 <= num_flawed <= num_correct.
    """
    _check_flawed(num_flawed, num_correct)
    return ratio(num_flawed, num_correct)


def reliable_accuracy(num_flawed: int, num_correct: int, num_rollouts: int) -> float:
    """Return (correct answers - flawed positives) / rollouts: the rate of answers that are correct for a valid reason.

    Args:
        num_flawed: Number of flawed positives.
        num_correct: Number of rollouts with a correct answer and a verdict.
        num_rollouts: Number of all rollouts.

    Returns:
        A rate; NaN without rollouts.

    Raises:
        ValueError: Unless 0 <= num_flawed <= num_correct <= num_rollouts.
    """
    _check_flawed(num_flawed, num_correct)
    if num_correct > num_rollouts:
        raise ValueError(f"num_correct={num_correct} is more than num_rollouts={num_rollouts}")
    return ratio(num_correct - num_flawed, num_rollouts)


def _check_flawed(num_flawed: int, num_correct: int) -> None:
    """Raise ValueError unless 0 <= num_flawed <= num_correct."""
    if not 0 <= num_flawed <= num_correct:
        raise ValueError(f"num_flawed must lie between 0 and num_correct={num_correct}; got {num_flawed}")
