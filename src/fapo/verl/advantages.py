"""Advantage estimator for verl (`algorithm.adv_estimator=fapo`): the group advantages of `fapo.rewards.advantages`.

verl's own estimator "grpo" cannot leave out unscored rollouts. `fapo.verl.recorder` imports this module; other programs
load it through the environment variable VERL_USE_EXTERNAL_MODULES=fapo.verl.advantages.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from verl.trainer.ppo.core_algos import register_adv_est

from fapo.rewards.advantages import group_advantages

NAME = "fapo"
"""Under which verl knows the estimator."""


@register_adv_est(NAME)
def fapo_advantages(
    token_level_rewards: torch.Tensor, response_mask: torch.Tensor, index: np.ndarray, config: Any = None, **_: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages and returns [num_rollouts, num_tokens], the same for every token of a rollout.

    A rollout's reward is the sum over its tokens; NaN means unscored. `index` names the group of each rollout.
    """
    rewards = token_level_rewards.detach().cpu().double().sum(dim=-1).numpy()
    scale = True if config is None else bool(config.get("norm_adv_by_std_in_grpo", True))
    advantages = torch.as_tensor(by_group(rewards, index, scale=scale)).to(token_level_rewards)
    whole = advantages.unsqueeze(-1) * response_mask
    return whole, whole


def by_group(rewards: np.ndarray, groups: Sequence[Any] | np.ndarray, *, scale: bool = True) -> np.ndarray:
    """`group_advantages` [num_rollouts] where the groups stand in any order and may differ in size."""
    numbers = {name: i for i, name in enumerate(dict.fromkeys(groups))}
    rows = np.array([numbers[name] for name in groups], dtype=int)
    columns = np.zeros(len(rows), dtype=int)
    for row in range(len(numbers)):
        columns[rows == row] = np.arange((rows == row).sum())
    table = np.full((len(numbers), columns.max(initial=0) + 1), np.nan)
    table[rows, columns] = rewards
    return np.asarray(group_advantages(table, scale=scale)[rows, columns])
