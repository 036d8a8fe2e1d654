"""Log-probabilities of rollouts where each prompt is read once for its group, with gradients, not once a rollout.

The keys and values of the prompts are computed in one forward pass. Each rollout continues from a copy of those of its
prompt, as generation does with its cache. The gradients of all copies add up in the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from fapo.inference.decoding import CHECKED_VERSION, equal_rows, is_random, is_version


@dataclass(frozen=True)
class Prompts:
    """Different prompts of a batch, without their last tokens, as the model has read them."""

    layers: list[tuple[torch.Tensor, torch.Tensor]]
    """Keys and values of each layer, each [num_prompts, num_heads, prompt_length - 1, head_size]."""
    mask: torch.Tensor
    """Mask of their tokens, [num_prompts, prompt_length - 1]."""
    copies: torch.Tensor
    """Position of the prompt of each rollout among the prompts, [num_rollouts]."""


def read_prompts(model: Any, inputs: Mapping[str, Any]) -> Prompts | None:
    """Read each different prompt of a batch once.

    Args:
        model: Causal language model.
        inputs: Batch with `prompt_ids` and `prompt_mask` [num_rollouts, prompt_length], padded on the left.

    Returns:
        The prompts; None if each rollout has another prompt, or if its model must read prompt and completion at once:
        it is wrapped for several processes, draws random numbers in training, saves memory by checkpoints of
        activations, or has a cache of another kind.
    """
    ids, mask = inputs["prompt_ids"], inputs["prompt_mask"]
    config = getattr(model, "config", None)  # a model that is wrapped for several processes has none
    plain = is_version(CHECKED_VERSION) and config is not None and config._attn_implementation in ("sdpa", "eager")
    if not plain or is_random(model) or model.is_activation_checkpointing or ids.shape[1] < 2:
        return None
    first, copies = equal_rows(ids, mask)
    if 2 * len(first) > len(ids):
        return None
    mask = mask[first, :-1]
    cache = model(input_ids=ids[first, :-1], attention_mask=mask, use_cache=True, logits_to_keep=1).cache
    if type(cache) is not DynamicCache or any(type(layer) is not DynamicLayer for layer in cache.layers):
        return None
    return Prompts([(layer.keys, layer.values) for layer in cache.layers], mask, copies)


def log_probs(
    model: Any, prompts: Prompts, rows: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the log-probabilities and entropies of the tokens of some rollouts.

    Args:
        model: Causal language model with the fused head of TRL.
        prompts: Prompts of the batch.
        rows: Indices of the rollouts in the batch, [B].
        ids: Last token of the prompt, and tokens of the completion, [B, C + 1].
        mask: Mask of these tokens, [B, C + 1].

    Returns:
        Log-probabilities in nats and entropies in nats, each [B, C].
    """
    copies = prompts.copies[rows]
    # index_select has a faster gradient than an index in brackets
    copied = [(keys.index_select(0, copies), values.index_select(0, copies)) for keys, values in prompts.layers]
    start = prompts.mask.shape[1]
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, 0] = -100
    outputs = model(
        input_ids=ids,
        attention_mask=torch.cat([prompts.mask[copies], mask], dim=1),
        position_ids=torch.arange(start, start + ids.shape[1], device=ids.device)[None],
        cache=DynamicCache(copied),
        labels=labels,
        fused_lm_head=True,
    )
    return outputs.log_probs, outputs.entropy
