"""The paper on one page: what a rollout earns, what a critique earns, and what both do to the advantages.

Pure functions of FAPO (arXiv 2510.22543), in the order of the pipeline: the policy's reward, the GenRM's reward, the
group's advantages, and the theory that says when a flawed positive stops helping.

Notation: alpha, gamma and beta are the shares of fully correct, flawed positive and wrong rollouts (they sum to 1),
lambda is the penalty, rho = alpha / beta. Rewards and advantages have no unit. Steps count from 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fapo.types import RolloutClass

# --- The policy's reward ---------------------------------------------------------------------------------------------


def outcome_reward(correct: bool) -> float:
    """R_RLVR = +1 if the final answer is right, else -1. Source: preliminaries of the paper."""
    return 1.0 if correct else -1.0


def fapo_reward(correct: bool, flawed: bool | None, penalty: float = 1.0) -> float | None:
    """R_FAPO = R_RLVR - lambda for a flawed positive (right answer, error found), R_RLVR otherwise.

    `flawed` is `Verdict.flawed`; on a wrong rollout it is not read. A right answer without a verdict (None) has no
    reward: None, never a guess. `penalty` is lambda: 0 is plain RLVR, 1 the paper's choice, 2 turns flawed positives
    into negatives. Raises ValueError for a penalty that is negative or not finite. Source: the paper's FAPO reward.
    """
    _check_penalty(penalty)
    if not correct:
        return outcome_reward(correct)
    if flawed is None:
        return None
    return outcome_reward(correct) - penalty if flawed else outcome_reward(correct)


def corrected_reward(
    correct: bool, flawed: bool | None, penalty: float, recall: float, false_positive_rate: float
) -> float | None:
    """Return R_FAPO corrected for the error rates of the judge, so that it is right on average.

    With r = `recall` and f = `false_positive_rate`, a flagged rollout gets 1 - lambda (1 - f) / (r - f), a cleared one
    1 + lambda f / (r - f): the two values whose means over the judge's errors are 1 - lambda for flawed and 1 for fully
    correct rollouts. Equal to `fapo_reward` for r = 1 and f = 0. Source: the unbiased loss of learning with noisy
    labels, for two classes; not in the paper.

    Args:
        correct: Whether the final answer is right.
        flawed: `Verdict.flawed`; None without a verdict. Not read on a wrong rollout.
        penalty: lambda, at least 0.
        recall: Rate of flawed rollouts that the judge flags.
        false_positive_rate: Rate of fully correct rollouts that the judge flags.

    Returns:
        The reward, without a unit; None for a right answer without a verdict.

    Raises:
        ValueError: `recall` is not above `false_positive_rate`, or the penalty is negative or not finite.
    """
    if not 0 <= false_positive_rate < recall <= 1:
        raise ValueError(
            f"the recall of the judge must be above its false positive rate; got {recall} and {false_positive_rate}"
        )
    value = fapo_reward(correct, flawed, penalty)
    if not correct or value is None:
        return value
    return 1.0 + penalty * (false_positive_rate - (1.0 if flawed else 0.0)) / (recall - false_positive_rate)


def step_ratio_reward(correct: bool, flawed: bool | None, error_step: int | None, num_steps: int) -> float | None:
    """R = R_RLVR + t / n, t the number of steps before the first error (n when none is found), n = `num_steps`.

    Ranges over [-1, 2] and applies to right and wrong rollouts alike. There is no reward (None) without a verdict
    (`flawed` is None), nor for a flaw whose step is not known (`error_step` is None). For ablation only: a policy games
    it by leaving out the steps it is unsure of. Raises ValueError when n < 1 or `error_step` is outside the steps.
    Source: the paper's ablation of step-ratio rewards.
    """
    if flawed is None or (flawed and error_step is None):
        return None
    _check_step("error_step", error_step, num_steps)
    num_before_error = num_steps if error_step is None else error_step
    return outcome_reward(correct) + num_before_error / num_steps


def overlong_penalty(num_tokens: int, max_tokens: int, buffer: int) -> float:
    """Soft length penalty, added to the reward: min(0, max(-1, (L_max - L_buffer - L) / L_buffer)).

    0 up to max_tokens - buffer tokens, then down a straight line to -1 at `max_tokens` and beyond; all in tokens.
    A buffer of 0 turns it off. Raises ValueError unless 0 <= buffer <= max_tokens. Source: DAPO's overlong shaping,
    used unchanged by FAPO.
    """
    if not 0 <= buffer <= max_tokens:
        raise ValueError(f"the overlong buffer must lie between 0 and max_tokens={max_tokens}; got {buffer}")
    if buffer == 0:
        return 0.0
    return max(-1.0, min(0.0, (max_tokens - buffer - num_tokens) / buffer))


# --- The GenRM's reward ----------------------------------------------------------------------------------------------


def genrm_outcome_reward(flawed: bool | None, truly_flawed: bool) -> float:
    """R_outcome = +1 if verdict and label are both "flawed" or both "not flawed", else -1.

    `flawed` is `Verdict.flawed`, so None (no verdict) earns -1. The reward of the yes/no baseline (GenORM). Source: the
    paper's GenRM reward.
    """
    return outcome_reward(flawed is not None and flawed == truly_flawed)


def genrm_reward(flawed: bool | None, error_step: int | None, label: int | None, num_steps: int) -> float:
    """R_GenRM = R_outcome + R_process, with R_process = -|t_hat - t*| / n if both say flawed, else 0.

    t_hat = `error_step`, t* = `label` (the true first wrong step, None for no error), n = `num_steps`; `flawed` and
    `error_step` are those of the verdict. Without a verdict the reward is -1. A right label always earns more (at least
    1/n) than a wrong one (-1). Raises ValueError when n < 1, when a step is outside the solution, and for a flagged
    solution without a step, as from a judge that answers yes or no. Source: the paper's GenRM reward (Step-RL).
    """
    _check_step("label", label, num_steps)
    outcome = genrm_outcome_reward(flawed, label is not None)
    if not flawed:
        return outcome
    if error_step is None:
        raise ValueError("a flagged solution needs the step of its error for this reward; use genrm_outcome_reward")
    _check_step("error_step", error_step, num_steps)
    return outcome if label is None else outcome - abs(error_step - label) / num_steps


# --- Advantages ------------------------------------------------------------------------------------------------------


def group_advantages(
    rewards: npt.ArrayLike | Sequence[Sequence[float | None]], *, scale: bool = True, eps: float = 1e-4
) -> npt.NDArray[np.float64]:
    """A_i = (R_i - mean) / (std + eps) within each group; with `scale` off, A_i = R_i - mean.

    `rewards`: [num_prompts, group_size], NaN (or None) = unscored; returns the same shape. Unscored rollouts get 0 and
    are left out of mean and std. std has Bessel's correction; groups with fewer than two scored rollouts or with equal
    rewards get 0 throughout. Equal to what TRL's GRPOTrainer computes (scale_rewards "group" or "none"). Raises
    ValueError for another number of dimensions, an empty group or an infinite reward. Source: GRPO.
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    if rewards.ndim != 2 or rewards.shape[1] == 0:
        raise ValueError(f"rewards must be [num_prompts, group_size]; reshape the array, its shape is {rewards.shape}")
    if np.isinf(rewards).any():
        raise ValueError("rewards must be finite; mark an unscored rollout with NaN, not with an infinity")
    scored = ~np.isnan(rewards)
    count = scored.sum(axis=1, keepdims=True)
    # Measured from the group's best reward, so that equal rewards give deviations of exactly 0.
    rewards = np.where(scored, rewards - np.fmax.reduce(rewards, axis=1, keepdims=True), 0.0)
    mean = rewards.sum(axis=1, keepdims=True) / np.maximum(count, 1)
    deviation = np.where(scored, rewards - mean, 0.0)
    if not scale:
        return deviation
    std = np.sqrt((deviation**2).sum(axis=1, keepdims=True) / np.maximum(count - 1, 1))
    return np.divide(deviation, std + eps, out=np.zeros_like(deviation), where=std > 0)


def mean_advantage_by_class(advantages: npt.ArrayLike, classes: Sequence[RolloutClass]) -> dict[str, float]:
    """Return the mean advantage of the fully_correct, flawed and wrong rollouts; NaN for a class without rollouts.

    Args:
        advantages: Advantage of each rollout, [num_rollouts].
        classes: Class of each rollout, [num_rollouts]. The unscored ones are not counted.

    Raises:
        ValueError: If the shapes differ.
    """
    advantages, names = np.asarray(advantages, dtype=np.float64), np.asarray(classes, dtype=object)
    if advantages.shape != names.shape or advantages.ndim != 1:
        raise ValueError(f"advantages and classes must be [num_rollouts]; got {advantages.shape} and {names.shape}")
    groups = {name: advantages[names == name] for name in ("fully_correct", "flawed", "wrong")}
    return {name: float(group.mean()) if len(group) else math.nan for name, group in groups.items()}


# --- Theory: when flawed positives turn from help to harm ------------------------------------------------------------


def rho(num_fully_correct: float, num_wrong: float) -> float:
    """rho = alpha / beta, how far learning has come on a group or a batch; inf with nothing wrong, NaN with neither."""
    if num_fully_correct < 0 or num_wrong < 0:
        raise ValueError(f"counts must not be negative; got {num_fully_correct} and {num_wrong}")
    if num_wrong == 0:
        return math.inf if num_fully_correct else math.nan
    return num_fully_correct / num_wrong


def flawed_rho(fully_correct: npt.ArrayLike, flawed: npt.ArrayLike, wrong: npt.ArrayLike) -> float:
    """rho as flawed positives see it: sum_g gamma_g alpha_g / sum_g gamma_g beta_g over the groups g of a batch.

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


def _check_step(name: str, step: int | None, num_steps: int) -> None:
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1; got {num_steps}")
    if step is not None and not 0 <= step < num_steps:
        raise ValueError(
            f"{name}={step} is outside the solution's {num_steps} steps (0 to {num_steps - 1}); "
            "pass None where no step is known"
        )


def _flawed_share(alpha: float, beta: float) -> float:
    """gamma = 1 - alpha - beta, with rounding below 0 cut off."""
    if not (alpha >= 0 and beta >= 0 and alpha + beta <= 1 + 1e-9):
        raise ValueError(f"alpha and beta must be shares, at least 0 and at most 1 together; got {alpha} and {beta}")
    return max(0.0, 1.0 - alpha - beta)
