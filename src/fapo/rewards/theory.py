"""Closed forms for the mean, the variance and the signs of FAPO's advantages."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

# --- Theory: when flawed positives turn from help to harm ------------------------------------------------------------


def rho(num_fully_correct: float, num_wrong: float) -> float:
    """Rho = alpha / beta, how far learning has come on a group or a batch; inf with nothing wrong, NaN with neither."""
    if num_fully_correct < 0 or num_wrong < 0:
        raise ValueError(f"counts must not be negative; got {num_fully_correct} and {num_wrong}")
    if num_wrong == 0:
        return math.inf if num_fully_correct else math.nan
    return num_fully_correct / num_wrong


def flawed_rho(fully_correct: npt.ArrayLike, flawed: npt.ArrayLike, wrong: npt.ArrayLike) -> float:
    """Rho as flawed positives see it: sum_g gamma_g alpha_g / sum_g gamma_g beta_g over the groups g of a batch.

    Counts or shares of each group, [num_groups]. A group weighs as much as it has flawed positives, so groups without
    any say nothing; rho of the whole batch counts those too, and they are mostly solved. With `scale` off in
    `group_advantages` the mean advantage of a batch's flawed positives turns negative exactly when this passes
    `shift_ratio`; scaled by each group's std, nearly so. inf if no such group has a wrong rollout, NaN if none has a
    fully correct or a wrong one. Raises ValueError when the shapes differ or a count is negative.
    """
    counts = [np.asarray(c, dtype=np.float64) for c in (fully_correct, flawed, wrong)]
    if len({c.shape for c in counts}) > 1 or counts[0].ndim != 1:
        raise ValueError(f"counts must be three of [num_groups]; got {', '.join(str(c.shape) for c in counts)}")
    if any((c < 0).any() for c in counts):
        raise ValueError("counts must not be negative")
    alpha, gamma, beta = counts
    return rho(float(gamma @ alpha), float(gamma @ beta))


def shift_ratio(penalty: float) -> float:
    """rho_shift = 2 / lambda - 1: a flawed positive's advantage is positive below it, 0 at it, negative above it.

    Exact in every group, not only on average. Negative for lambda > 2 (never positive); inf for lambda = 0 (always).
    Raises ValueError for a penalty that is negative or not finite. Source: the paper's theory, first threshold.
    """
    _check_penalty(penalty)
    return 2.0 / penalty - 1.0 if penalty else math.inf


def shrink_ratio(penalty: float) -> float:
    """rho_shrink = 4 / lambda - 1: above it the reward's variance, and with it the scale of all advantages, grows.

    What shrinks past it is the gap between fully correct and wrong, 2 / std. The paper reads this as smaller
    advantages of the positives, which holds for no class by itself: for lambda <= 4 a fully correct rollout's
    advantage is above that of plain RLVR at every rho, because the mean falls too; and for lambda <= 2 the mean over
    all right answers is below it at every rho. inf for lambda = 0. Raises ValueError for a penalty that is negative or
    not finite. Source: the paper's theory, second threshold.
    """
    _check_penalty(penalty)
    return 4.0 / penalty - 1.0 if penalty else math.inf


def fapo_mean(alpha: float, beta: float, penalty: float) -> float:
    """mean_FAPO = mean_GRPO - lambda gamma, with mean_GRPO = 1 - 2 beta.

    Raises ValueError unless alpha and beta are shares with alpha + beta <= 1. Source: the paper's theory.
    """
    _check_penalty(penalty)
    return 1.0 - 2.0 * beta - penalty * _flawed_share(alpha, beta)


def fapo_variance(alpha: float, beta: float, penalty: float) -> float:
    """var_FAPO = var_GRPO + lambda gamma (1 - gamma) (lambda - 4 / (rho + 1)), with var_GRPO = 4 beta (1 - beta).

    The population variance (no Bessel's correction). Computed as the sum over pairs of classes of share * share *
    (difference of rewards)^2: the same number, never below 0 and defined where rho is not. Raises ValueError unless
    alpha and beta are shares with alpha + beta <= 1. Source: the paper's theory.
    """
    _check_penalty(penalty)
    gamma = _flawed_share(alpha, beta)
    return 4.0 * alpha * beta + penalty**2 * alpha * gamma + (2.0 - penalty) ** 2 * beta * gamma


def expected_advantages(alpha: float, beta: float, penalty: float) -> tuple[float, float, float]:
    """(R_class - mean_FAPO) / std_FAPO of a fully correct, a flawed positive and a wrong rollout, in that order.

    The limit of large groups, eps = 0; (0, 0, 0) where all rewards are equal. A class of share 0 gets what its first
    rollout would. Raises ValueError unless alpha and beta are shares with alpha + beta <= 1.
    """
    mean, std = fapo_mean(alpha, beta, penalty), math.sqrt(fapo_variance(alpha, beta, penalty))
    if std == 0.0:
        return 0.0, 0.0, 0.0
    return (1.0 - mean) / std, (1.0 - penalty - mean) / std, (-1.0 - mean) / std


# --- Checks ----------------------------------------------------------------------------------------------------------


def _check_penalty(penalty: float) -> None:
    if not 0 <= penalty < math.inf:
        raise ValueError(f"the penalty for flawed positives must be finite and at least 0; got {penalty}")


def _flawed_share(alpha: float, beta: float) -> float:
    """Gamma = 1 - alpha - beta, with rounding below 0 cut off."""
    if not (alpha >= 0 and beta >= 0 and alpha + beta <= 1 + 1e-9):
        raise ValueError(f"alpha and beta must be shares, at least 0 and at most 1 together; got {alpha} and {beta}")
    return max(0.0, 1.0 - alpha - beta)
