"""Located credit: what a flawed positive wrote before its first wrong step is credited as right. Not in the paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fapo.scoring import Scored
from fapo.steps import split


def num_tokens_before(tokenizer: Any, tokens: Sequence[int], response: str, error_step: int) -> int:
    """How many of a response's tokens come before its first wrong step; a token across the border does not."""
    border = sum(len(step) for step in split(response)[:error_step])
    low, high = 0, len(tokens)
    while low < high:
        middle = (low + high + 1) // 2
        text = tokenizer.decode(tokens[:middle], skip_special_tokens=True)
        low, high = (middle, high) if len(text) <= border else (low, middle - 1)
    return low


def located_advantages(
    scored: Sequence[Scored],
    advantages: npt.NDArray[np.floating],
    num_before: Sequence[int],
    num_tokens: int,
    group_size: int,
) -> npt.NDArray[np.float64]:
    """[num_rollouts, num_tokens]: as `advantages` [num_rollouts], but +1's advantage on the tokens before a flaw.

    `num_before`: of each rollout, how many tokens that is. +1's advantage is (1 - mean) / (std + 1e-4) of the group,
    what a fully correct rollout of it gets, with mean and std of the scored rollouts, as in `group_advantages`.
    """
    out = np.repeat(np.asarray(advantages, dtype=np.float64)[:, None], num_tokens, axis=1)
    for start in range(0, len(scored), group_size):
        group = scored[start : start + group_size]
        values = [s.reward.value for s in group if s.reward.value is not None]
        if len(values) < 2 or min(values) == max(values):
            continue
        right = (1.0 - float(np.mean(values))) / (float(np.std(values, ddof=1)) + 1e-4)
        for i, one in enumerate(group, start):
            if one.correct and one.flawed:
                out[i, : num_before[i]] = right
    return out
