"""TRL's loss without the rollouts that cannot change it: those with zero advantage, and without padding.

TRL has no hook for this, so `GRPOTrainer._compute_loss` is overridden for the version of TRL in `fapo.trl.version`.
With any other version, and with options that are not covered here, TRL computes the loss on the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from trl import GRPOTrainer

from fapo.trl.version import is_checked

CHUNK = 64
"""Maximum number of rollouts, of similar length, in a forward pass."""
_BY_TOKEN = ("completion_ids", "completion_mask", "advantages", "old_per_token_logps", "importance_sampling_ratio")
_KNOWN = {"prompt_ids", "prompt_mask", "num_items_in_batch", "sampling_per_token_logps", *_BY_TOKEN}
_EXTREMES = {"clip_ratio/low_min": min, "clip_ratio/high_max": max}


def split_batch(inputs: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield smaller batches; their losses add up to the loss of the batch.

    A rollout does not change the gradient of a clipped loss without KL if its advantage is zero or its tokens are all
    masked. The others come in order of their length, at most CHUNK at a time, without padding. At least one rollout is
    kept.

    Args:
        inputs: Batch of `GRPOTrainer._compute_loss`. `prompt_ids` and `prompt_mask` [num_rollouts, prompt_length] are
            padded on the left, `completion_ids` and `completion_mask` [num_rollouts, completion_length] on the right.
            `advantages` is [num_rollouts]. Any other tensor has a row for each rollout, or is a scalar.

    Yields:
        Batches with the same keys, fewer rows, and shorter prompts and completions.
    """
    advantages, completions = inputs["advantages"], inputs["completion_mask"].sum(1)
    rows = (advantages * completions).nonzero().flatten()
    rows = rows if len(rows) else torch.zeros(1, dtype=torch.long, device=advantages.device)
    lengths = inputs["prompt_mask"].sum(1) + completions
    for chunk in rows[lengths[rows].argsort()].split(CHUNK):
        prompt = int(inputs["prompt_mask"][chunk].sum(1).max())
        completion = max(1, int(completions[chunk].max()))
        out = {}
        for key, value in inputs.items():
            if not isinstance(value, torch.Tensor) or value.dim() == 0:
                out[key] = value
            elif key.startswith("prompt"):
                out[key] = value[chunk][:, value.shape[1] - prompt :]
            else:
                out[key] = value[chunk] if value.dim() == 1 or value.shape[1] == 1 else value[chunk][:, :completion]
        yield out


class SkipZeroAdvantages(GRPOTrainer):
    """GRPOTrainer that computes the same loss and gradient in less time.

    TRL's `clip_ratio` metrics are those of the whole batch. Its `entropy` is the mean over the tokens of rollouts with
    an advantage, since that of the others would need their forward pass.
    """

    def _compute_loss(self, model: Any, inputs: Any) -> torch.Tensor:
        if not self._covers(inputs):
            return super()._compute_loss(model, inputs)
        metrics = self._metrics["train" if self.model.training else "eval"]
        before = {name: len(values) for name, values in metrics.items()}
        parts = list(split_batch(inputs))
        losses = [super(SkipZeroAdvantages, self)._compute_loss(model, part) for part in parts]
        num_tokens = [int(part["completion_mask"].sum()) for part in parts]
        num_all_tokens = int(inputs["completion_mask"].sum())
        skipped = [0.0] if sum(num_tokens) < num_all_tokens else []  # a skipped rollout has no clipped tokens
        for name, values in metrics.items():
            start = before.get(name, 0)
            if not (found := values[start:]):
                continue
            if name in _EXTREMES:
                values[start:] = [_EXTREMES[name](found + skipped)]
            else:
                total = sum(num_tokens) if name == "entropy" else num_all_tokens
                values[start:] = [sum(v * n for v, n in zip(found, num_tokens, strict=True)) / max(1, total)]
        return torch.stack(losses).sum()

    def _covers(self, inputs: Mapping[str, Any]) -> bool:
        """Return whether the losses of the parts of a batch add up to its loss."""
        plain = self.loss_type == "dapo" and self.beta == 0 and self.top_entropy_quantile == 1
        plain = plain and self.importance_sampling_level == "token" and is_checked()
        plain = plain and self.accelerator.num_processes == 1  # several must do the same number of forward passes
        extra = self.off_policy_mask_threshold is not None or self._entropy_bonus_enabled or self.aux_loss_enabled
        return plain and not extra and not set(inputs) - _KNOWN
