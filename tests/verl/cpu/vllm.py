"""Under verl's name "vllm", for rollouts and reward models: its own replica with what vLLM's CPU build needs.

Loaded by verl while it is being imported itself; what needs vLLM is imported when a replica is asked for.
"""

from __future__ import annotations

from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry


def replica_class() -> type[RolloutReplica]:
    from cpu.vllm_server import Replica

    return Replica


RolloutReplicaRegistry.register("vllm", replica_class)
