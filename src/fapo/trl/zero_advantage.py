"""TRL's loss without padding, with one copy of a prompt, and without gradients of rollouts with zero advantage.

TRL has no hook for this, so methods of `GRPOTrainer` are overridden for the version of TRL in `fapo.trl.version`.
With any other version, and with options that are not covered here, TRL computes the loss on the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from trl import GRPOTrainer

from fapo.trl.shared_prompts import Prompts, log_probs, read_prompts
from fapo.trl.version import is_checked

CHUNK = 64
"""Maximum number of rollouts, of similar length, in a forward pass."""
_BY_TOKEN = ("completion_ids", "completion_mask", "advantages", "old_per_token_logps", "importance_sampling_ratio")
_KNOWN = {"prompt_ids", "prompt_mask", "num_items_in_batch", "sampling_per_token_logps", *_BY_TOKEN}
_EXTREMES = {"clip_ratio/low_min": min, "clip_ratio/high_max": max}


def split_batch(inputs: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], bool]]:
    """Yield smaller batches; the losses of those that need a gradient add up to the loss of the batch.

    A rollout does not change the gradient of a clipped loss without KL if its advantage is zero or its tokens are all
    masked. Rollouts that do change it come first. Both kinds are in order of their length, at most CHUNK in a batch,
    without padding. Rollouts without any token in the mask are left out. At least one rollout needs a gradient.

    Args:
        inputs: Batch of `GRPOTrainer._compute_loss`. `prompt_ids` and `prompt_mask` [num_rollouts, prompt_length] are
            padded on the left, `completion_ids` and `completion_mask` [num_rollouts, completion_length] on the right.
            `advantages` is [num_rollouts] or [num_rollouts, completion_length]. Any other tensor has a row for each
            rollout, or is a scalar.

    Yields:
        Batch with the same keys, fewer rows, and shorter prompts and completions; and whether it needs a gradient.
    """
    completions = inputs["completion_mask"].sum(1)
    lengths = inputs["prompt_mask"].sum(1) + completions
    advantages = inputs["advantages"] != 0
    learning = (advantages.any(1) if advantages.dim() > 1 else advantages) & (completions > 0)
    if not learning.any():
        learning[completions.argmax()] = True
    for rows, needs_gradient in ((learning, True), (~learning & (completions > 0), False)):
        indices = rows.nonzero().flatten()
        for chunk in indices[lengths[indices].argsort()].split(CHUNK):
            if len(chunk):
                yield _cut(inputs, chunk, int(completions[chunk].max())), needs_gradient


def _cut(inputs: Mapping[str, Any], rows: torch.Tensor, completion: int) -> dict[str, Any]:
    """Return some rows of a batch without padding; `completion` is the length of their longest completion."""
    prompt = int(inputs["prompt_mask"][rows].sum(1).max())
    completion = max(2, completion)  # a completion of one column is, to TRL's metrics, a value of a whole sequence
    out = {}
    for key, value in inputs.items():
        if not isinstance(value, torch.Tensor) or value.dim() == 0:
            out[key] = value
        elif key.startswith("prompt"):
            out[key] = value[rows][:, value.shape[1] - prompt :]
        else:
            out[key] = value[rows] if value.dim() == 1 or value.shape[1] == 1 else value[rows][:, :completion]
    return out


class SkipZeroAdvantages(GRPOTrainer):
    """GRPOTrainer that computes the same loss, gradient and metrics in less time.

    Rollouts without an advantage have a forward pass for the metrics (`entropy` is the mean over all tokens), but no
    backward pass. Prompts are read once for each group.
    """

    _prompts: Prompts | None = None
    """Prompts of the batch in the loss that is being computed; None where each rollout reads its own."""
    _rows: torch.Tensor
    """Indices in this batch of the rollouts in the present part of the loss."""

    def _compute_loss(self, model: Any, inputs: Any) -> torch.Tensor:
        if not (is_checked() and self._covers(inputs)):
            return super()._compute_loss(model, inputs)
        metrics = self._metrics["train" if self.model.training else "eval"]
        before = {name: len(values) for name, values in metrics.items()}
        losses, num_tokens = [], []
        with self.accelerator.autocast():
            self._prompts = read_prompts(model, inputs)
        index = torch.arange(len(inputs["advantages"]), device=inputs["advantages"].device)
        try:
            for part, needs_gradient in split_batch({**inputs, "row": index}):
                self._rows = part.pop("row")
                with torch.set_grad_enabled(needs_gradient and torch.is_grad_enabled()):
                    loss = super()._compute_loss(model, part)
                if needs_gradient:
                    losses.append(loss)
                num_tokens.append(int(part["completion_mask"].sum()))
        finally:
            self._prompts = None
        for name, values in metrics.items():
            start = before.get(name, 0)
            if not (found := values[start:]):
                continue
            if name in _EXTREMES:
                values[start:] = [_EXTREMES[name](found)]
            else:
                mean = sum(v * n for v, n in zip(found, num_tokens, strict=True)) / max(1, sum(num_tokens))
                values[start:] = [mean]
        return torch.stack(losses).sum()

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int, *args: Any, **kwargs: Any
    ) -> Any:
        if not self._prompts:
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
            )
        ids, mask = input_ids[:, -logits_to_keep - 1 :], attention_mask[:, -logits_to_keep - 1 :]
        with self.accelerator.autocast():
            return *log_probs(model, self._prompts, self._rows, ids, mask), None

    def _covers(self, inputs: Mapping[str, Any]) -> bool:
        """Return whether the losses of the parts of a batch add up to its loss."""
        plain = self.loss_type == "dapo" and self.beta == 0 and self.top_entropy_quantile == 1
        plain = plain and self.importance_sampling_level == "token"
        plain = plain and self.accelerator.num_processes == 1  # several must do the same number of forward passes
        extra = self.off_policy_mask_threshold is not None or self._entropy_bonus_enabled or self.aux_loss_enabled
        return plain and not extra and not set(inputs) - _KNOWN
