"""verl's rollout by transformers' generate in a Ray actor: actor_rollout_ref.rollout.name=cpu."""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections.abc import Iterator
from typing import Any

import ray
import torch
from transformers import AutoModelForCausalLM
from verl.workers.rollout import base
from verl.workers.rollout.replica import RolloutReplica, RolloutReplicaRegistry, TokenOutput

NAME = "cpu"
NO_SYNC = "FAPO_TEST_NO_WEIGHT_SYNC"
"""Environment variable: new weights are not taken over, for a test that this is noticed."""
PACE = "FAPO_TEST_PACE"
"""Environment variable, "median sigma longest": an answer is held back for log-normal seconds, `longest` at most."""
GATHER_SECONDS = 0.05
"""Requests that come within this time are sampled together."""


def delay(token_ids: list[int]) -> float:
    """Seconds for which a response is held back; they follow from its tokens."""
    median, sigma, longest = map(float, os.environ.get(PACE, "0 0 0").split())
    return min(longest, median * random.Random(repr(token_ids)).lognormvariate(0, sigma))


def _server_name(rank: int) -> str:
    return f"fapo_test_cpu_server_{rank}"


class ServerAdapter(base.BaseRollout):
    """The trainer's side: hands new weights to the server."""

    def __init__(self, config: Any, model_config: Any, device_mesh: Any, replica_rank: int = -1) -> None:
        super().__init__(config, model_config, device_mesh)
        self.rank = int(os.environ["RANK"]) if replica_rank == -1 else replica_rank

    async def resume(self, tags: list[str]) -> None:
        pass

    async def release(self) -> None:
        pass

    async def update_weights(
        self, weights: Iterator[tuple[str, torch.Tensor]], global_steps: int | None = None, **_: Any
    ) -> None:
        state = {name: tensor.detach().float().cpu().clone() for name, tensor in weights}
        await ray.get_actor(_server_name(self.rank)).load.remote(state, global_steps)


class Server:
    """A model that samples; requests of one moment share a batch."""

    def __init__(self, path: str, max_tokens: int, seed: int) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(seed)  # as vLLM is seeded by verl
        self.max_tokens = max_tokens
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        self.step: int | None = None
        self.waiting: list[tuple[list[int], dict[str, Any], asyncio.Future]] = []
        self.sampling = asyncio.Lock()
        self.is_open, self.aborting = asyncio.Event(), threading.Event()
        self.is_open.set()

    async def load(self, state: dict[str, torch.Tensor], step: int | None) -> None:
        async with self.sampling:
            if not os.environ.get(NO_SYNC):
                self.model.load_state_dict(state, strict=True)
            self.step = step

    async def generate(self, prompt_ids: Any, sampling_params: dict[str, Any], request_id: str, **_: Any) -> Any:
        await self.is_open.wait()
        future = asyncio.get_running_loop().create_future()
        self.waiting.append((list(prompt_ids), dict(sampling_params), future))
        await asyncio.sleep(GATHER_SECONDS)
        async with self.sampling:
            batch, self.waiting = self.waiting, []
            if batch:
                outputs = await asyncio.to_thread(self._sample, batch)
                for (_, _, asked), output in zip(batch, outputs, strict=True):
                    held = 0.0 if output.stop_reason == "aborted" else delay(output.token_ids)
                    asyncio.get_running_loop().call_later(held, asked.set_result, output)
        return await future

    def _limit(self, params: dict[str, Any]) -> int:
        """Return the length limit of a request in tokens."""
        return int(params.get("max_tokens") or params.get("max_new_tokens") or self.max_tokens)

    @torch.no_grad()
    def _sample(self, batch: list[tuple[list[int], dict[str, Any], Any]]) -> list[TokenOutput]:
        """Return one response for each request; all have the same temperature and top_p, but limits of their own."""
        width = max(len(prompt) for prompt, _, _ in batch)
        ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt, _, _ in batch])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt, _, _ in batch])
        params, limits = batch[0][1], [self._limit(params) for _, params, _ in batch]
        temperature = params.get("temperature", 1.0)
        out = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max(limits),
            do_sample=temperature > 0,
            temperature=temperature or None,
            top_k=0,
            top_p=params.get("top_p", 1.0),
            pad_token_id=0,
            return_dict_in_generate=True,
            output_logits=True,
            stopping_criteria=[lambda ids, _: torch.full((len(ids),), self.aborting.is_set())],
        )
        new = out.sequences[:, width:]
        logits = torch.stack(out.logits, dim=1) / (temperature or 1.0)
        logprobs = logits.log_softmax(-1).gather(-1, new[..., None])[..., 0]
        ends = self.model.generation_config.eos_token_id
        ends = {ends} if isinstance(ends, int) else set(ends)
        found = []
        for tokens, probs, limit in zip(new.tolist(), logprobs.tolist(), limits, strict=True):
            end = next((i + 1 for i, token in enumerate(tokens) if token in ends), None)
            length = min(end or len(tokens), limit)
            ended = bool(end and end <= limit) or length == limit
            found.append(
                TokenOutput(
                    token_ids=tokens[:length],
                    log_probs=probs[:length],
                    stop_reason="completed" if ended else "aborted",
                    extra_fields={"global_steps": self.step},
                )
            )
        return found

    async def wake_up(self, tags: Any = None) -> None:
        pass

    async def sleep(self) -> None:
        pass

    async def clear_kv_cache(self) -> None:
        pass

    async def abort_all_requests(self, **_: Any) -> None:
        """Return what is written; requests that arrive wait until generation resumes."""
        self.is_open.clear()
        self.aborting.set()
        while self.waiting:  # those that have arrived before get a first token
            await asyncio.sleep(GATHER_SECONDS)
        async with self.sampling:
            pass

    async def resume_generation(self) -> None:
        self.aborting.clear()
        self.is_open.set()


class Replica(RolloutReplica):
    """The driver's side: starts the server."""

    async def launch_servers(self) -> None:
        path = getattr(self.model_config, "local_path", None) or self.model_config.path
        options = {"name": _server_name(self.replica_rank), "max_concurrency": self.max_concurrency}
        seed = self.config.seed + self.replica_rank
        server = ray.remote(Server).options(**options).remote(path, self.config.response_length, seed)
        self.servers, self._server_handle = [server], server
        self._server_address = _server_name(self.replica_rank)


base._ROLLOUT_REGISTRY[(NAME, "async")] = f"{__name__}.ServerAdapter"
RolloutReplicaRegistry.register(NAME, lambda: Replica)
