"""verl's own vLLM server; only the way in which new weights are taken over differs."""

from __future__ import annotations

import os
from typing import Any

import ray
import torch
from verl.workers.rollout.vllm_rollout.bucketed_weight_transfer import BucketedWeightReceiver
from verl.workers.rollout.vllm_rollout.utils import vLLMColocateWorkerExtension
from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMHttpServer, vLLMReplica

from cpu.rollout import NO_SYNC


class WorkerExtension(vLLMColocateWorkerExtension):
    """Loaded by vLLM's worker. Its CPU layers keep their weights repacked, which load_weights does not know."""

    def update_weights_from_ipc(
        self, peft_config: Any = None, base_sync_done: bool = False, use_shm: bool = False
    ) -> None:
        receiver = BucketedWeightReceiver(
            zmq_handle=self._get_zmq_handle(), device=torch.device("cpu"), use_shm=use_shm
        )
        state: dict[str, torch.Tensor] = {}
        receiver.receive_weights(
            on_bucket_received=lambda weights, is_last: state.update((name, w.clone()) for name, w in weights)
        )
        if not os.environ.get(NO_SYNC):
            self.model_runner.reload_weights(weights_iterator=iter(state.items()))


class Server(vLLMHttpServer):
    """verl's server with our worker extension."""

    def _get_worker_extension_cls(self) -> str:
        return f"{WorkerExtension.__module__}.{WorkerExtension.__name__}"


class Replica(vLLMReplica):
    """verl's replica with our server."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.server_class = ray.remote(Server)
