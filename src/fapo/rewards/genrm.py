"""Rewards of a GenRM (section 3.2 of the paper)."""

from __future__ import annotations

from fapo.rewards.policy import _check_step, outcome_reward

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
