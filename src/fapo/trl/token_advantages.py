"""Advantages of tokens for TRL: those before the first error of a rollout, those of the wrong step, and the rest.

The loss of `GRPOTrainer` takes advantages of rollouts or of tokens (TRL 1.16, `_compute_loss`).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fapo.rewards.first_error import Parts, token_values


def token_advantages(parts: Sequence[Parts], batch: Mapping[str, torch.Tensor], tokenizer: Any) -> torch.Tensor:
    """Return the advantage of each token of a batch.

    Args:
        parts: Parts of each rollout, [num_rollouts].
        batch: Batch of `GRPOTrainer`. Its completion_ids and completion_mask are [num_rollouts, completion_length],
            with padding on the right.
        tokenizer: Tokenizer of the policy.

    Returns:
        Advantages, [num_rollouts, completion_length], as `token_values` does; 0 for padding.
    """
    ids, lengths = batch["completion_ids"], batch["completion_mask"].sum(1)
    decode = functools.partial(tokenizer.decode, skip_special_tokens=True)
    out = batch["advantages"].new_zeros(ids.shape)
    for i, (part, length) in enumerate(zip(parts, lengths.tolist(), strict=True)):
        out[i, :length] = out.new_tensor(token_values(part, ids[i, :length].tolist(), decode))
    return out
