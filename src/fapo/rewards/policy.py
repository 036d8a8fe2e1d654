"""Reward of a policy: a correct answer earns 1, a flawed positive 1 - lambda, a wrong answer -1; and its variants.

Pure functions of FAPO (arXiv 2510.22543). A flawed positive is a rollout with a correct answer and an error in its
reasoning; lambda is its penalty. Rewards have no unit. Steps are counted from 0.
"""

from __future__ import annotations

import math


def outcome_reward(correct: bool) -> float:
    """Return R_RLVR = +1 if the final answer is correct, else -1. Source: the paper's preliminaries (RLVR)."""
    return 1.0 if correct else -1.0


def fapo_reward(correct: bool, flawed: bool | None, penalty: float = 1.0) -> float | None:
    """Return R_FAPO = R_RLVR - lambda for a flawed positive, R_RLVR otherwise.

    Source: the paper's definition of the FAPO reward.

    Args:
        correct: Whether the final answer is correct.
        flawed: `Verdict.flawed`; None without a verdict. It is not read for a wrong answer.
        penalty: lambda; 0 is plain RLVR, 1 the paper's choice, 2 makes a flawed positive worth as little as an error.

    Returns:
        The reward; None for a correct answer without a verdict.

    Raises:
        ValueError: If the penalty is negative or not finite.
    """
    check_penalty(penalty)
    if not correct:
        return outcome_reward(correct)
    if flawed is None:
        return None
    return outcome_reward(correct) - penalty if flawed else outcome_reward(correct)


def corrected_reward(
    correct: bool, flawed: bool | None, penalty: float, recall: float, false_positive_rate: float
) -> float | None:
    """Return R_FAPO corrected for the error rates of the judge, so that its mean over the judge's errors is R_FAPO.

    With r = `recall` and f = `false_positive_rate`, a flagged rollout earns 1 - lambda (1 - f) / (r - f), a cleared one
    1 + lambda f / (r - f). The mean is then 1 - lambda for flawed and 1 for fully correct rollouts. For r = 1 and f = 0
    the result is `fapo_reward`. By the classes of the judge, mean, variance and signs of the advantages are those of
    `fapo.rewards.theory` at another penalty (`equivalent_penalty`). Source: the unbiased loss for binary noisy labels
    (Natarajan et al. 2013), not FAPO.

    Args:
        correct: Whether the final answer is correct.
        flawed: `Verdict.flawed`; None without a verdict. It is not read for a wrong answer.
        penalty: lambda, at least 0.
        recall: Rate of flawed rollouts that the judge flags.
        false_positive_rate: Rate of fully correct rollouts that the judge flags.

    Returns:
        The reward; None for a correct answer without a verdict.

    Raises:
        ValueError: If `recall` is not above `false_positive_rate`, or the penalty is negative or not finite.
    """
    check_rates(recall, false_positive_rate)
    value = fapo_reward(correct, flawed, penalty)
    if not correct or value is None:
        return value
    return 1.0 + penalty * (false_positive_rate - (1.0 if flawed else 0.0)) / (recall - false_positive_rate)


def step_ratio_reward(correct: bool, flawed: bool | None, error_step: int | None, num_steps: int) -> float | None:
    """Return R = R_RLVR + t / n, where t of the n steps come before the first error (t = n where none is found).

    The reward lies in [-1, 2] and applies to correct and wrong answers. It is for ablation only: a policy can increase
    it by leaving out the steps it is unsure of. The mean of a group is mean_GRPO plus that of t / n. The advantage of a
    flawed positive is negative where its 1 + t / n is below this mean. Source: the paper's ablation of step-ratio
    rewards.

    Args:
        correct: Whether the final answer is correct.
        flawed: `Verdict.flawed`; None without a verdict.
        error_step: `Verdict.error_step`, the index of the first error; None where no step is named.
        num_steps: n, the number of steps of the solution.

    Returns:
        The reward; None without a verdict and for an error without a step.

    Raises:
        ValueError: If n < 1 or `error_step` is outside the solution.
    """
    if flawed is None or (flawed and error_step is None):
        return None
    check_step("error_step", error_step, num_steps)
    num_before_error = num_steps if error_step is None else error_step
    return outcome_reward(correct) + num_before_error / num_steps


def overlong_penalty(num_tokens: int, max_tokens: int, buffer: int) -> float:
    """Return the soft length penalty min(0, max(-1, (L_max - L_buffer - L) / L_buffer)), which is added to a reward.

    It is 0 up to L_max - L_buffer tokens and falls linearly to -1 at L_max tokens. Source: overlong reward shaping of
    DAPO (arXiv 2503.14476), which FAPO uses unchanged.

    Args:
        num_tokens: L, the length of the response in tokens.
        max_tokens: L_max, the length limit in tokens.
        buffer: L_buffer, the number of tokens before the limit where the penalty grows; 0 for no penalty.

    Returns:
        A number in [-1, 0].

    Raises:
        ValueError: If the buffer is negative or above `max_tokens`.
    """
    if not 0 <= buffer <= max_tokens:
        raise ValueError(f"the overlong buffer must lie between 0 and max_tokens={max_tokens}; got {buffer}")
    if buffer == 0:
        return 0.0
    return max(-1.0, min(0.0, (max_tokens - buffer - num_tokens) / buffer))


# --- Checks ----------------------------------------------------------------------------------------------------------


def check_penalty(penalty: float) -> None:
    """Raise ValueError if a penalty is negative or not finite."""
    if not 0 <= penalty < math.inf:
        raise ValueError(f"the penalty for flawed positives must be finite and at least 0; got {penalty}")


def check_rates(recall: float, false_positive_rate: float) -> None:
    """Raise ValueError for rates of a judge that cannot be corrected."""
    if not 0 <= false_positive_rate < recall <= 1:
        raise ValueError(f"recall must be above the false positive rate; got {recall} and {false_positive_rate}")


def check_step(name: str, step: int | None, num_steps: int) -> None:
    """Check that a step lies in the solution.

    Args:
        name: Name of the step for the message.
        step: Index of the step, from 0; None is always accepted.
        num_steps: Number of steps of the solution.

    Raises:
        ValueError: If the solution has no steps, or the step is outside it.
    """
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1; got {num_steps}")
    if step is not None and not 0 <= step < num_steps:
        raise ValueError(
            f"{name}={step} is outside the solution's {num_steps} steps (0 to {num_steps - 1}); "
            "pass None where no step is known"
        )
