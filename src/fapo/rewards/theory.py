"""Theory of FAPO: mean, variance and signs of the advantages, in closed form.

Pure functions of FAPO (arXiv 2510.22543, theoretical analysis). Notation: alpha, gamma and beta are the fractions of
fully correct rollouts, flawed positives and wrong rollouts of a group; they sum to 1. lambda is the penalty of a flawed
positive, and rho = alpha / beta. All quantities are without a unit.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from fapo.rewards.policy import check_penalty, check_rates

# --- Progress of learning --------------------------------------------------------------------------------------------


def rho(num_fully_correct: float, num_wrong: float) -> float:
    """Return rho = alpha / beta, which measures the progress of learning on a group or a batch.

    Args:
        num_fully_correct: Number, or fraction, of fully correct rollouts.
        num_wrong: Number, or fraction, of wrong rollouts, relative to the same total.

    Returns:
        The ratio; inf without wrong rollouts, NaN without wrong and fully correct ones.

    Raises:
        ValueError: If a number is negative.
    """
    if num_fully_correct < 0 or num_wrong < 0:
        raise ValueError(f"counts must not be negative; got {num_fully_correct} and {num_wrong}")
    if num_wrong == 0:
        return math.inf if num_fully_correct else math.nan
    return num_fully_correct / num_wrong


def flawed_rho(fully_correct: npt.ArrayLike, flawed: npt.ArrayLike, wrong: npt.ArrayLike) -> float:
    """Return sum_g gamma_g alpha_g / sum_g gamma_g beta_g: rho over groups g, weighted by their flawed positives.

    Groups without flawed positives do not count; rho of the whole batch counts them too, and most of them are solved.
    With unscaled advantages (`group_advantages(..., scale=False)`) the mean advantage of a batch's flawed positives is
    negative exactly when this ratio exceeds `shift_ratio`. With scaled advantages this holds approximately.

    Args:
        fully_correct: Number, or fraction, of fully correct rollouts of each group, [num_groups].
        flawed: Number, or fraction, of flawed positives of each group, [num_groups].
        wrong: Number, or fraction, of wrong rollouts of each group, [num_groups].

    Returns:
        The ratio; inf if no counted group has a wrong rollout, NaN if none has a wrong or a fully correct one.

    Raises:
        ValueError: If the shapes differ or a number is negative.
    """
    counts = [np.asarray(c, dtype=np.float64) for c in (fully_correct, flawed, wrong)]
    if len({c.shape for c in counts}) > 1 or counts[0].ndim != 1:
        raise ValueError(f"counts must be three of [num_groups]; got {', '.join(str(c.shape) for c in counts)}")
    if any((c < 0).any() for c in counts):
        raise ValueError("counts must not be negative")
    alpha, gamma, beta = counts
    return rho(float(gamma @ alpha), float(gamma @ beta))


# --- Thresholds of rho -----------------------------------------------------------------------------------------------


def shift_ratio(penalty: float) -> float:
    """Return rho_shift = 2 / lambda - 1, the rho at which the advantage of a flawed positive is 0.

    The advantage is positive below and negative above it, in every group. The result is negative for lambda > 2, where
    the advantage is never positive, and inf for lambda = 0. A penalty that is negative or not finite is a ValueError.
    Source: the paper's theoretical analysis, first threshold.
    """
    check_penalty(penalty)
    return 2.0 / penalty - 1.0 if penalty else math.inf


def shrink_ratio(penalty: float) -> float:
    """Return rho_shrink = 4 / lambda - 1, the rho above which FAPO increases the variance of the rewards.

    Above it the gap between the advantages of fully correct and wrong rollouts, 2 / std, is smaller than under RLVR.
    The paper concludes that the advantages of correct answers are smaller, but this holds for no class by itself. For
    lambda <= 4 a fully correct rollout has a larger advantage than under RLVR at every rho, since the mean falls too.
    For lambda <= 2 the mean over all correct answers is smaller at every rho.

    The result is inf for lambda = 0. A penalty that is negative or not finite is a ValueError. Source: the paper's
    theoretical analysis, second threshold.
    """
    check_penalty(penalty)
    return 4.0 / penalty - 1.0 if penalty else math.inf


# --- Moments of the rewards, and advantages --------------------------------------------------------------------------


def fapo_mean(alpha: float, beta: float, penalty: float) -> float:
    """Return mean_FAPO = mean_GRPO - lambda gamma, with mean_GRPO = 1 - 2 beta.

    Source: the paper's theoretical analysis.

    Args:
        alpha: Fraction of fully correct rollouts.
        beta: Fraction of wrong rollouts.
        penalty: lambda.

    Returns:
        Mean reward of a group.

    Raises:
        ValueError: If a fraction is negative, alpha + beta > 1, or the penalty is negative or not finite.
    """
    check_penalty(penalty)
    return 1.0 - 2.0 * beta - penalty * _gamma(alpha, beta)


def fapo_variance(alpha: float, beta: float, penalty: float) -> float:
    """Return var_FAPO = var_GRPO + lambda gamma (1 - gamma) (lambda - 4 / (rho + 1)).

    Here var_GRPO = 4 beta (1 - beta). The result is computed as the sum over pairs of classes of (product of fractions)
    * (difference of rewards)^2, which is the same number, never negative, and defined where rho is not. Source: the
    paper's theoretical analysis.

    Args:
        alpha: Fraction of fully correct rollouts.
        beta: Fraction of wrong rollouts.
        penalty: lambda.

    Returns:
        Population variance of the rewards of a group (without Bessel's correction).

    Raises:
        ValueError: If a fraction is negative, alpha + beta > 1, or the penalty is negative or not finite.
    """
    check_penalty(penalty)
    gamma = _gamma(alpha, beta)
    return 4.0 * alpha * beta + penalty**2 * alpha * gamma + (2.0 - penalty) ** 2 * beta * gamma


def expected_advantages(alpha: float, beta: float, penalty: float) -> tuple[float, float, float]:
    """Return (R_class - mean_FAPO) / std_FAPO for each class: the advantages in the limit of large groups.

    Args:
        alpha: Fraction of fully correct rollouts.
        beta: Fraction of wrong rollouts.
        penalty: lambda.

    Returns:
        Advantages of a fully correct rollout, a flawed positive and a wrong rollout; three zeros where all rewards are
        equal. A class with fraction 0 has the advantage that a single rollout of it would have.

    Raises:
        ValueError: If a fraction is negative, alpha + beta > 1, or the penalty is negative or not finite.
    """
    mean, std = fapo_mean(alpha, beta, penalty), math.sqrt(fapo_variance(alpha, beta, penalty))
    if std == 0.0:
        return 0.0, 0.0, 0.0
    return (1.0 - mean) / std, (1.0 - penalty - mean) / std, (-1.0 - mean) / std


# --- Correction for the errors of a judge ----------------------------------------------------------------------------


def corrected_mean(flag_rate: float, penalty: float, recall: float, false_positive_rate: float) -> float:
    """Return 1 - lambda (q - f) / (r - f), the mean corrected reward of correct rollouts that are flagged at rate q.

    Between fully correct rollouts and flawed positives the mean differs by lambda times the true r - f over the one
    that `corrected_reward` assumes. So it is lambda for the true rates. It is at most lambda where the assumed r - f is
    too large, and without a bound where it is too small.

    The rates are averages over all flaws. A flaw of a kind that is never flagged has q = 0 and earns
    1 + lambda f / (r - f), at least as much as a fully correct rollout. A kind that is flagged more often than the
    average pays more than lambda. No correction by averages finds a blind spot.

    Args:
        flag_rate: q, the rate of these rollouts that the judge flags.
        penalty: lambda.
        recall: r, the recall for which the reward is corrected.
        false_positive_rate: f, the false positive rate for which it is corrected, below `recall`.

    Returns:
        Mean over the errors of the judge.

    Raises:
        ValueError: If `recall` is not above `false_positive_rate`, or the penalty is negative or not finite.
    """
    check_penalty(penalty)
    check_rates(recall, false_positive_rate)
    return 1.0 - penalty * (flag_rate - false_positive_rate) / (recall - false_positive_rate)


def equivalent_penalty(penalty: float, recall: float, false_positive_rate: float) -> float:
    """Return 2 s / (2 + s f) with s = lambda / (r - f), the penalty at which FAPO has the advantages of the correction.

    A cleared rollout earns 1 + s f, a flagged one s less, and a wrong one -1. An affine map, with the slope
    (2 + s f) / 2, turns the three rewards 1, 1 - lambda' and -1 of FAPO into these. The advantages of a group are
    normalised, so the map does not change them: a correction is another penalty. This holds without a length penalty,
    and up to the constant that is added to the standard deviation. Without scaling by the standard deviation, the
    advantages are also larger by the slope.

    The forward correction (arXiv 2510.00915), 1 - lambda (1 - f) and 1 + lambda f, is the case r = 1 with the penalty
    lambda (1 - f), so that s = lambda.

    Args:
        penalty: lambda.
        recall: r, the recall for which the reward is corrected.
        false_positive_rate: f, the false positive rate for which it is corrected, below `recall`.

    Returns:
        lambda'.

    Raises:
        ValueError: If `recall` is not above `false_positive_rate`, or the penalty is negative or not finite.
    """
    check_penalty(penalty)
    check_rates(recall, false_positive_rate)
    slope = penalty / (recall - false_positive_rate)
    return 2.0 * slope / (2.0 + slope * false_positive_rate)


# --- Decoupled advantages --------------------------------------------------------------------------------------------


def decoupled_shift_ratio(alpha: float, beta: float, weight: float) -> float:
    """Return phi / w^2, the rho above which the decoupled advantage of a flawed positive is negative.

    phi = gamma / (alpha + gamma) is the rate of flawed ones among the correct rollouts. With w = 1 the threshold is
    below 1, where FAPO with lambda = 1 has it.

    Args:
        alpha: Fraction of fully correct rollouts, above 0.
        beta: Fraction of wrong rollouts.
        weight: w, the weight of the verdict, above 0.

    Returns:
        The ratio.

    Raises:
        ValueError: If a fraction is negative, alpha + beta > 1, or alpha or the weight is 0.
    """
    gamma = _gamma(alpha, beta)
    if alpha == 0 or weight <= 0:
        raise ValueError(f"alpha and the weight must be above 0; got {alpha} and {weight}")
    return gamma / (alpha + gamma) / weight**2


def _gamma(alpha: float, beta: float) -> float:
    """Return gamma = 1 - alpha - beta; 0 where only rounding is left."""
    if not (alpha >= 0 and beta >= 0 and alpha + beta <= 1 + 1e-9):
        raise ValueError(f"alpha and beta must be fractions, at least 0 and at most 1 together; got {alpha} and {beta}")
    gamma = 1.0 - alpha - beta
    return gamma if gamma > 1e-12 else 0.0
