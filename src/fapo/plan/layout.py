"""How a config lays the policy out on GPUs: what its [verl] table says, and verl's defaults for what it leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fapo.config import Config
from fapo.errors import ConfigError
from fapo.verl.overrides import flat

_ROLLOUT, _FSDP = "actor_rollout_ref.rollout", "actor_rollout_ref.actor.fsdp_config"


@dataclass(frozen=True)
class Layout:
    """GPUs of the policy, which writes rollouts and is trained on the same ones."""

    gpus: int
    """All of them."""
    rollout_gpus: int
    """GPUs that one server of rollouts spans."""
    slots: int
    """Rollouts that it writes at once at most."""
    memory_share: float
    """Share of a GPU's memory that it takes."""
    shards: int
    """GPUs over which weights, gradients and optimizer are spread in training."""
    offload_params: bool
    """Whether weights and gradients wait in the host's memory while they are not needed ..."""
    offload_optimizer: bool
    """... and the optimizer's state."""
    prompt_limit: int
    """Longest prompt in tokens."""

    @property
    def servers(self) -> int:
        """Servers of rollouts."""
        return self.gpus // self.rollout_gpus


def layout_of(config: Config, gpus: int | None) -> Layout:
    """The layout of a config, on other GPUs if a number is given. Raises ConfigError for one that cannot be."""
    table = {key.lstrip("+"): value for key, value in flat(config.verl)}
    if gpus is None:
        gpus = _count(table, "trainer.nnodes", 1) * _count(table, "trainer.n_gpus_per_node", 8)
    tensor = _count(table, f"{_ROLLOUT}.tensor_model_parallel_size", 2 if table else 1)
    if gpus % tensor:
        raise ConfigError(
            f"{gpus} GPUs are no multiple of the {tensor} of a rollout server; "
            f"set {_ROLLOUT}.tensor_model_parallel_size in [verl], or --gpus"
        )
    shards = int(table.get(f"{_FSDP}.fsdp_size", -1))
    return Layout(
        gpus,
        tensor,
        _count(table, f"{_ROLLOUT}.max_num_seqs", 1024),
        float(table.get(f"{_ROLLOUT}.gpu_memory_utilization", 0.5)),
        gpus if shards < 1 else min(shards, gpus),
        bool(table.get(f"{_FSDP}.param_offload", False)),
        bool(table.get(f"{_FSDP}.optimizer_offload", False)),
        _count(table, "data.max_prompt_length", 2048),
    )


def _count(table: Mapping[str, Any], key: str, default: int) -> int:
    value = table.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"[verl]: {key} must be a whole number above 0, not {value!r}")
    return value
