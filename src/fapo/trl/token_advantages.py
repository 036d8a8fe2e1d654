"""Advantages of tokens for TRL: those before the first error of a rollout, those of the wrong step, and the rest.

The loss of `GRPOTrainer` takes advantages of rollouts or of tokens (TRL 1.16, `_compute_loss`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fapo.rewards.first_error import Parts, tokens_before


def token_advantages(parts: Sequence[Parts], batch: Mapping[str, torch.Tensor], tokenizer: Any) -> torch.Tensor:
    """Return the advantage of each token of a batch.

    Args:
        parts: Parts of each rollout, [num_rollouts].
        batch: Batch of `GRPOTrainer`. Its completion_ids and completion_mask are [num_rollouts, completion_length],
            with padding on the right.
        tokenizer: Tokenizer of the policy.

    Returns:
        Advantages, [num_rollouts, completion_length]. A token that belongs to two parts counts to the first one.
        Thinking counts to the steps before the error, and the end of the sequence to the last step. Where the response
        is not in the text of the tokens, the whole rollout has the advantage of the wrong step.
    """
    ids, lengths = batch["completion_ids"], batch["completion_mask"].sum(1)
    out = batch["advantages"].new_zeros(ids.shape)
    for i, (part, length) in enumerate(zip(parts, lengths.tolist(), strict=True)):
        start, end = _places(part, ids[i, :length].tolist(), tokenizer)
        out[i, :start], out[i, start:end], out[i, end:] = part.before, part.error, part.after
    return out


def _places(part: Parts, tokens: Sequence[int], tokenizer: Any) -> tuple[int, int]:
    """Return the number of tokens before the wrong step, and before what follows it."""

    def decode(first: Sequence[int]) -> str:
        return str(tokenizer.decode(first, skip_special_tokens=True))

    begin = decode(tokens).rfind(part.response)
    if begin < 0 or (part.start, part.end) == (0, len(part.response)):
        return 0, len(tokens)
    is_last = part.end == len(part.response)
    start = tokens_before(tokens, begin + part.start, decode)
    return start, len(tokens) if is_last else tokens_before(tokens, begin + part.end, decode)
