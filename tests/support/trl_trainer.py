"""TRL's GRPOTrainer, for tests that run with every supported version of TRL."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import torch
from trl import GRPOTrainer

TRAINS = torch.cuda.is_available() or not metadata.version("trl").startswith("1.15.")
"""Whether the installed TRL can train on this machine: the loss of TRL 1.15 is a Triton kernel."""


class _WithoutUpdate(GRPOTrainer):
    """GRPOTrainer that generates, scores and logs as TRL does, with a loss of 0."""

    def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> torch.Tensor:
        return 0.0 * sum(parameter.sum() for parameter in model.parameters())


UsableTrainer = GRPOTrainer if TRAINS else _WithoutUpdate
"""GRPOTrainer; where it cannot train, one that does all but the update."""
