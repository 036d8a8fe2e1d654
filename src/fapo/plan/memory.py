"""What a GPU of each role has to hold, in GiB. Pure; fragments, buffers of NCCL and CUDA graphs come on top."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fapo.plan.layout import Layout
from fapo.plan.shapes import BF16, Shape

GIB = 2**30


@dataclass(frozen=True)
class Memory:
    """One role's share of a GPU's memory, in GiB."""

    role: str
    """What the GPU does."""
    gpus: int
    """GPUs of this role; those of rollouts and of training are the same, one after the other."""
    weights: float
    """Weights."""
    gradients: float = 0.0
    """Gradients."""
    optimizer: float = 0.0
    """AdamW's two moments."""
    activations: float = 0.0
    """Activations of a micro-batch at the length limit, with gradient checkpointing, and its logits."""
    cache: float = 0.0
    """The cache of the sequences under way."""
    waiting: float = 0.0
    """What training leaves on the GPU while rollouts are written: its weights and moments, where not offloaded."""
    sequences: int = 0
    """Sequences at the length limit that this cache holds."""

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.cache + self.waiting


def training_memory(
    shape: Shape, layout: Layout, dtype: Literal["float32", "bfloat16"], micro_batch: int, limit: int
) -> Memory:
    """A GPU in training (FSDP): weights, gradients and two moments in `dtype`, sharded; activations in bfloat16.

    A micro-batch has `micro_batch` sequences of `limit` tokens. Kept are the inputs of each layer, what one layer needs
    while it is done again, the gathered weights of two layers, and logits with their gradient.
    """
    number, own = 4 if dtype == "float32" else BF16, shape.num_params / layout.shards / GIB
    tokens = micro_batch * limit
    per_layer = 8 * shape.hidden_size + 3 * shape.intermediate_size
    layer_params = shape.num_params / shape.num_hidden_layers
    activations = tokens * (shape.num_hidden_layers * shape.hidden_size + per_layer + 2 * shape.vocab_size) * BF16
    return Memory(
        "training",
        layout.gpus,
        weights=own * number + 2 * layer_params * BF16 / GIB,
        gradients=own * number,
        optimizer=0.0 if layout.offload_optimizer else 2 * own * number,
        activations=activations / GIB,
    )


def waiting_memory(shape: Shape, layout: Layout, dtype: Literal["float32", "bfloat16"]) -> float:
    """GiB that training leaves on a GPU while rollouts are written."""
    kept = (0 if layout.offload_params else 1) + (0 if layout.offload_optimizer else 2)
    return kept * shape.num_params / layout.shards * (4 if dtype == "float32" else BF16) / GIB


def serving_memory(
    role: str, shape: Shape, gpus: int, gpus_each: int, memory: float, slots: int, limit: int, waiting: float = 0.0
) -> Memory:
    """A GPU of a server that spans `gpus_each` and may take `memory` GiB of each: weights in bfloat16, the rest cache.

    The cache is as large as its `slots` sequences of `limit` tokens need, if there is room for it.
    """
    weights = shape.num_params * BF16 / gpus_each / GIB
    each = limit * shape.kv_bytes / gpus_each / GIB
    room = max(0.0, memory - weights)
    sequences = min(slots, int(room / each))
    return Memory(role, gpus, weights, cache=min(room, slots * each), sequences=sequences, waiting=waiting)
