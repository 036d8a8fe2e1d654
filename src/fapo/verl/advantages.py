"""Advantage estimator for verl (`algorithm.adv_estimator=fapo`): the group advantages of `fapo.rewards.advantages`.

verl's own estimator "grpo" cannot leave out unscored rollouts. `fapo.verl.recorder` imports this module; other programs
load it through the environment variable VERL_USE_EXTERNAL_MODULES=fapo.verl.advantages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from verl.trainer.ppo.core_algos import register_adv_est

from fapo.rewards.advantages import group_advantages, group_positions, group_table

NAME = "fapo"
"""Name of the estimator in verl's configuration."""
TOKENS = "fapo_tokens"
"""Name of the estimator for advantages that differ within a rollout."""


@register_adv_est(NAME)
def fapo_advantages(
    token_level_rewards: torch.Tensor, response_mask: torch.Tensor, index: np.ndarray, config: Any = None, **_: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return advantages and returns; both are equal, and the same for every token of a rollout.

    Args:
        token_level_rewards: Rewards of the tokens [num_rollouts, num_tokens]; the reward of a rollout is their sum, and
            NaN means unscored.
        response_mask: 1 for tokens of the response, 0 for padding [num_rollouts, num_tokens].
        index: Name of the group of each rollout [num_rollouts].
        config: verl's table `algorithm`. `norm_adv_by_std_in_grpo` says whether advantages are divided by the standard
            deviation of their group.

    Returns:
        Advantages and returns, each [num_rollouts, num_tokens].

    Raises:
        ValueError: If a reward is infinite.
    """
    rewards = token_level_rewards.detach().cpu().double().sum(dim=-1).numpy()
    scale = True if config is None else bool(config.get("norm_adv_by_std_in_grpo", True))
    advantages = torch.as_tensor(advantages_by_group(rewards, index, scale=scale)).to(token_level_rewards)
    of_tokens = advantages.unsqueeze(-1) * response_mask
    return of_tokens, of_tokens


@register_adv_est(TOKENS)
def given_advantages(
    token_level_rewards: torch.Tensor, response_mask: torch.Tensor, **_: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return advantages and returns: the rewards of the tokens, which are advantages already (kind "first_error").

    Args:
        token_level_rewards: Advantages of the tokens [num_rollouts, num_tokens].
        response_mask: 1 for tokens of the response, 0 for padding [num_rollouts, num_tokens].

    Returns:
        Advantages and returns, each [num_rollouts, num_tokens].
    """
    of_tokens = token_level_rewards.detach() * response_mask
    return of_tokens, of_tokens


def advantages_by_group(
    rewards: npt.NDArray[np.float64], groups: Sequence[Any] | np.ndarray, *, scale: bool = True
) -> npt.NDArray[np.float64]:
    """Return `group_advantages` of groups that stand in any order and may differ in size.

    Args:
        rewards: Reward of each rollout, NaN for unscored [num_rollouts].
        groups: Name of the group of each rollout [num_rollouts].
        scale: Whether deviations are divided by the standard deviation of their group.

    Returns:
        Advantages [num_rollouts].

    Raises:
        ValueError: If a reward is infinite.
    """
    rows, columns = group_positions(groups)
    return np.asarray(group_advantages(group_table(rewards, rows, columns), scale=scale)[rows, columns])
