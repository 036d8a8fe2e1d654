"""AdamW with a warm-up that counts updates. verl's own warm-up counts batches, also where a batch has many updates."""

from __future__ import annotations

from typing import Any

import torch


class WarmupAdamW(torch.optim.AdamW):
    """AdamW with a linear warm-up, as TRL has it: the first update has learning rate 0."""

    def __init__(self, params: Any, *, warmup_updates: int, **settings: Any) -> None:
        """Make the optimizer.

        Args:
            params: Parameters, or groups of parameters.
            warmup_updates: Number of updates before the whole learning rate is reached.
            **settings: Settings of AdamW.
        """
        super().__init__(params, **settings)
        self.warmup_updates = warmup_updates

    def step(self, closure: Any = None) -> Any:
        """Do one update; the learning rates of the groups are those after the warm-up before and after it."""
        done = max((int(state["step"]) for state in self.state.values() if "step" in state), default=0)
        factor = min(1.0, done / self.warmup_updates) if self.warmup_updates else 1.0
        whole = [group["lr"] for group in self.param_groups]
        for group in self.param_groups:
            group["lr"] *= factor
        try:
            return super().step(closure)
        finally:
            for group, rate in zip(self.param_groups, whole, strict=True):
                group["lr"] = rate
