"""Reward of a GenRM in training: does its critique give the label of the solution, and how far off is the named step?

Pure functions of FAPO (arXiv 2510.22543). Rewards have no unit. Steps are counted from 0.
"""

from __future__ import annotations

from fapo.rewards.policy import check_step, outcome_reward


def genrm_outcome_reward(flawed: bool | None, truly_flawed: bool) -> float:
    """Return R_outcome = +1 if verdict and label are both "flawed" or both "not flawed", else -1.

    It is the whole reward of the paper's yes/no baseline (GenORM). Source: the paper's definition of the GenRM reward.

    Args:
        flawed: `Verdict.flawed`; without a verdict (None) the reward is -1.
        truly_flawed: Whether the label of the solution is "flawed".

    Returns:
        1 or -1.
    """
    return outcome_reward(flawed is not None and flawed == truly_flawed)


def genrm_reward(flawed: bool | None, error_step: int | None, label: int | None, num_steps: int) -> float:
    """Return R_GenRM = R_outcome + R_process, with R_process = -|t_hat - t*| / n if both say "flawed", else 0.

    A correct verdict earns at least 1/n, every other critique -1. Source: the paper's definition of the GenRM reward.

    Args:
        flawed: `Verdict.flawed`; without a verdict (None) the reward is -1.
        error_step: t_hat, the first wrong step by the verdict; None unless `flawed`.
        label: t*, the true first wrong step; None for no error.
        num_steps: n, the number of steps of the solution.

    Returns:
        The reward, in [-1, 1].

    Raises:
        ValueError: If n < 1, a step is outside the solution, or a flagged solution has no step, as from a judge that
            answers yes or no.
    """
    check_step("label", label, num_steps)
    outcome = genrm_outcome_reward(flawed, label is not None)
    if not flawed:
        return outcome
    if error_step is None:
        raise ValueError("a flagged solution needs the step of its error for this reward; use genrm_outcome_reward")
    check_step("error_step", error_step, num_steps)
    return outcome if label is None else outcome - abs(error_step - label) / num_steps
