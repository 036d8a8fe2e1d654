"""The paper on one page: what a rollout earns, what a critique earns, and what both do to the advantages.

Pure functions of FAPO (arXiv 2510.22543), in the order of the pipeline: the policy's reward, the GenRM's reward, the
group's advantages, and the theory that says when a flawed positive stops helping.

Notation: alpha, gamma and beta are the shares of fully correct, flawed positive and wrong rollouts (they sum to 1),
lambda is the penalty, rho = alpha / beta. Rewards and advantages have no unit. Steps count from 0.
"""

from __future__ import annotations

from fapo.rewards.theory import _check_penalty

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


def _check_step(name: str, step: int | None, num_steps: int) -> None:
    if num_steps < 1:
        raise ValueError(f"num_steps must be at least 1; got {num_steps}")
    if step is not None and not 0 <= step < num_steps:
        raise ValueError(
            f"{name}={step} is outside the solution's {num_steps} steps (0 to {num_steps - 1}); "
            "pass None where no step is known"
        )
