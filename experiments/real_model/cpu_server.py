"""Serve a Qwen2 checkpoint on one CPU thread, with the chat API of OpenAI, for many greedy requests at once.

    python -m experiments.real_model.cpu_server FOLDER PORT

Three things make it faster than `generate` of transformers on judgements: weights that are packed once for bfloat16,
keys and values of the common start of all prompts that are computed once, and a new request in the place of each one
that is finished. The mathematics is that of transformers' Qwen2ForCausalLM.
"""

from __future__ import annotations

import argparse
import asyncio
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from aiohttp import web
from safetensors.torch import load_file
from transformers import AutoConfig, AutoTokenizer

Attend = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
"""Attention of one layer: layer, queries [n, heads, dim], keys and values [n, kv_heads, dim] -> [n, heads * dim]."""


class Linear:
    """A linear layer with packed weights."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 32)
        self.bias = bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


class Qwen2:
    """The network, without the attention itself, which depends on how keys and values are stored."""

    def __init__(self, folder: Path) -> None:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.dim, self.eps = config.hidden_size // config.num_attention_heads, config.rms_norm_eps
        exponents = torch.arange(0, self.dim, 2).float() / self.dim
        self.frequencies = 1.0 / config.rope_parameters["rope_theta"] ** exponents
        weights = {name: w for file in folder.glob("*.safetensors") for name, w in load_file(file).items()}
        self.embedding, self.norm = weights["model.embed_tokens.weight"], weights["model.norm.weight"]
        self.head = Linear(weights.get("lm_head.weight", self.embedding))
        self.layers = []
        for index in range(config.num_hidden_layers):
            layer = {name: weights.pop(f"model.layers.{index}.{name}") for name in LAYER}
            qkv = [torch.cat([layer[f"self_attn.{x}_proj.{part}"] for x in "qkv"]) for part in ("weight", "bias")]
            gate_up = torch.cat([layer["mlp.gate_proj.weight"], layer["mlp.up_proj.weight"]])
            linears = Linear(*qkv), Linear(layer["self_attn.o_proj.weight"]), Linear(gate_up)
            norms = layer["input_layernorm.weight"], layer["post_attention_layernorm.weight"]
            self.layers.append((*norms, *linears, Linear(layer["mlp.down_proj.weight"])))

    def next_tokens(self, tokens: torch.Tensor, positions: torch.Tensor, attend: Attend, last: bool) -> list[int]:
        """Return the most likely next token after each token, [n]; only that after the last token if `last`."""
        angles = positions[:, None].float() * self.frequencies
        cos, sin = (torch.cat((f, f), -1).to(self.embedding.dtype)[:, None] for f in (angles.cos(), angles.sin()))
        num, heads, kv_heads, half = len(tokens), self.heads, self.kv_heads, self.dim // 2
        x = self.embedding[tokens]
        for index, (norm, post_norm, qkv, out, gate_up, down) in enumerate(self.layers):
            y = qkv(F.rms_norm(x, norm.shape, norm, self.eps)).view(num, heads + 2 * kv_heads, self.dim)
            qk = y[:, : heads + kv_heads]
            qk = qk * cos + torch.cat((-qk[..., half:], qk[..., :half]), -1) * sin
            x = x + out(attend(index, qk[:, :heads], qk[:, heads:], y[:, heads + kv_heads :]))
            gate, up = gate_up(F.rms_norm(x, post_norm.shape, post_norm, self.eps)).chunk(2, -1)
            x = x + down(F.silu(gate) * up)
        x = F.rms_norm(x[-1:] if last else x, self.norm.shape, self.norm, self.eps)
        found: list[int] = self.head(x).float().argmax(-1).tolist()
        return found


LAYER = [f"self_attn.{x}_proj.{part}" for x in "qkv" for part in ("weight", "bias")] + [
    *(f"mlp.{x}_proj.weight" for x in ("gate", "up", "down")),
    *("self_attn.o_proj.weight", "input_layernorm.weight", "post_attention_layernorm.weight"),
]
"""Names of the weights of a layer."""


@dataclass
class Request:
    """A prompt and what has been written after it."""

    prompt: list[int]
    """Tokens of the prompt."""
    max_tokens: int
    """Length limit of the answer in tokens."""
    answer: Future[tuple[list[int], bool]] = field(default_factory=Future)
    """Tokens of the answer, and whether it ended by itself."""
    written: list[int] = field(default_factory=list)
    """Tokens so far, with the end token."""
    num_stored: int = 0
    """Number of tokens after the common start that are stored, as keys and values."""


class Batch:
    """Requests that are answered together. Prompts are read one by one, since a prompt is long enough to be fast."""

    def __init__(self, folder: Path, ends: set[int], slots: int = 32, room: int = 1600) -> None:
        """Load the model.

        Args:
            folder: Checkpoint.
            ends: Tokens that end an answer.
            slots: Maximum number of requests at once.
            room: Maximum number of tokens of a request after the common start, with its answer.
        """
        self.model, self.ends, self.room = Qwen2(folder), ends, room
        model, dtype = self.model, self.model.embedding.dtype
        shape = len(model.layers), slots, model.kv_heads, room, model.dim
        self.keys, self.values = torch.zeros(shape, dtype=dtype), torch.zeros(shape, dtype=dtype)
        self.slots: list[Request | None] = [None] * slots
        self.waiting: list[Request] = []
        self._read_start([])

    def step(self) -> bool:
        """Fill free slots and write one token for each request. Return whether there is more to do."""
        start = len(self.start)
        fitting = [r for r in self.waiting if len(r.prompt) > start and r.prompt[:start] == self.start]
        if self.waiting and not any(self.slots) and (not fitting or not self.start):
            fitting = self.waiting[:]
            self._read_start(common_start([request.prompt for request in fitting]))
        for slot in (slot for slot, request in enumerate(self.slots) if request is None):
            if not fitting:
                break
            self.waiting.remove(request := fitting.pop(0))
            if request.answer.set_running_or_notify_cancel():
                self._read_prompt(slot, request)
        self._finish()
        if any(self.slots):
            self._write()
            self._finish()
        return any(self.slots) or bool(self.waiting)

    def _read_start(self, start: list[int]) -> None:
        """Store keys and values of the common start."""
        model, stored = self.model, []
        self.start = start
        if not start:
            empty = torch.zeros(model.kv_heads, 0, model.dim, dtype=model.embedding.dtype)
            self.start_kv = [(empty, empty)] * len(model.layers)
            return

        def attend(_: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            q, k, v = (t.transpose(0, 1).contiguous() for t in (q, k, v))
            stored.append((k, v))
            out = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True, enable_gqa=True)
            return out[0].transpose(0, 1).reshape(len(start), -1)

        model.next_tokens(torch.tensor(start), torch.arange(len(start)), attend, last=True)
        self.start_kv = stored

    def _read_prompt(self, slot: int, request: Request) -> None:
        """Store keys and values of a prompt behind the common start, and write the first token."""
        start, own = len(self.start), request.prompt[len(self.start) :]
        num = len(own)
        if num >= self.room:
            request.answer.set_exception(ValueError(f"the prompt has {num} tokens after the common start"))
            return
        visible = torch.ones(num, start + num, dtype=torch.bool).tril(start)

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            q, k, v = (t.transpose(0, 1) for t in (q, k, v))
            self.keys[layer, slot, :, :num], self.values[layer, slot, :, :num] = k, v
            k, v = (torch.cat(pair, 1)[None] for pair in zip(self.start_kv[layer], (k, v), strict=True))
            out = F.scaled_dot_product_attention(q[None], k, v, attn_mask=visible, enable_gqa=True)
            return out[0].transpose(0, 1).reshape(num, -1)

        positions = torch.arange(start, start + num)
        request.written = self.model.next_tokens(torch.tensor(own), positions, attend, last=True)
        request.num_stored = num
        self.slots[slot] = request

    def _write(self) -> None:
        """Write one token for each request. Each reads the keys of the common start, and its own up to its length."""
        model, start = self.model, len(self.start)
        busy = {slot: request for slot, request in enumerate(self.slots) if request}
        slots, lengths = torch.tensor(list(busy)), torch.tensor([request.num_stored for request in busy.values()])
        num, longest, group = len(busy), int(lengths.max()) + 1, model.heads // model.kv_heads
        hidden = (torch.arange(longest) > lengths[:, None])[:, None, None]
        dense = list(busy) == list(range(num))  # a view instead of a copy

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            keys, values = self.keys[layer], self.values[layer]
            keys[slots, :, lengths], values[slots, :, lengths] = k, v
            keys, values = ((t[:num] if dense else t[slots])[:, :, :longest] for t in (keys, values))
            start_keys, start_values = self.start_kv[layer]
            q = q.view(num, model.kv_heads, group, model.dim)
            by_head = q.transpose(0, 1).reshape(model.kv_heads, num * group, model.dim)
            own = (keys @ q.transpose(2, 3)).transpose(2, 3).float().masked_fill_(hidden, float("-inf"))
            common = (by_head @ start_keys.transpose(1, 2)).float().view(model.kv_heads, num, group, start)
            scores = torch.cat((common.transpose(0, 1), own), -1) * model.dim**-0.5
            weights = scores.softmax(-1).to(q.dtype)
            by_head = weights[..., :start].transpose(0, 1).reshape(model.kv_heads, num * group, start)
            common = (by_head @ start_values).view(model.kv_heads, num, group, model.dim).transpose(0, 1)
            return (weights[..., start:] @ values + common).reshape(num, -1)

        tokens = torch.tensor([request.written[-1] for request in busy.values()])
        for request, token in zip(
            busy.values(), model.next_tokens(tokens, lengths + start, attend, last=False), strict=True
        ):
            request.written.append(token)
            request.num_stored += 1

    def _finish(self) -> None:
        """Return the answers that have ended or reached a limit, and free their slots."""
        for slot, request in enumerate(self.slots):
            if request is None:
                continue
            ended = request.written[-1] in self.ends
            if ended or len(request.written) >= request.max_tokens or request.num_stored + 1 >= self.room:
                request.answer.set_result((request.written[:-1] if ended else request.written, ended))
                self.slots[slot] = None


def common_start(prompts: Sequence[list[int]]) -> list[int]:
    """Return the tokens with which all prompts start; at least one token of each prompt is left out."""
    first = min(prompts, key=len)
    num = len(first) - 1
    while any(prompt[:num] != first[:num] for prompt in prompts):
        num -= 1
    return first[:num]


def work(batch: Batch, inbox: queue.Queue[Request]) -> None:
    """Answer requests for ever, in a thread of its own."""
    more = False
    with torch.no_grad():
        while True:
            if not more:
                batch.waiting.append(inbox.get())
                time.sleep(0.5)  # requests that are sent together should start together
            while not inbox.empty():
                batch.waiting.append(inbox.get())
            more = batch.step()


def application(folder: Path) -> web.Application:
    """Return the server of a checkpoint.

    Args:
        folder: Checkpoint of a Qwen2 model with a chat template.

    Returns:
        An application with /v1/models and /v1/chat/completions, which refuses to sample.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    special = {tokenizer.convert_tokens_to_ids(token) for token in ("<|im_end|>", "<|endoftext|>")}
    inbox: queue.Queue[Request] = queue.Queue()
    batch = Batch(folder, {tokenizer.eos_token_id, *special} - {None})
    threading.Thread(target=work, args=(batch, inbox), daemon=True).start()

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"object": "list", "data": [{"id": folder.name, "object": "model"}]})

    async def chat(http: web.Request) -> web.Response:
        body: dict[str, Any] = await http.json()
        if body.get("temperature") != 0:
            return web.json_response({"error": {"message": "only temperature 0; this server is greedy"}}, status=400)
        prompt = tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True, return_dict=True)
        inbox.put(request := Request(prompt["input_ids"], int(body["max_tokens"])))
        try:
            written, ended = await asyncio.wrap_future(request.answer)
        except ValueError as error:
            return web.json_response({"error": {"message": str(error)}}, status=400)
        text = tokenizer.decode(written, skip_special_tokens=True)
        choice = {"index": 0, "finish_reason": "stop" if ended else "length", "message": {"role": "assistant"}}
        choice["message"]["content"] = text
        usage = {"prompt_tokens": len(request.prompt), "completion_tokens": len(written)}
        answer = {"object": "chat.completion", "model": folder.name, "choices": [choice], "usage": usage}
        return web.json_response(answer)

    app = web.Application(client_max_size=2**24)
    app.add_routes([web.get("/v1/models", models), web.post("/v1/chat/completions", chat)])
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description="Serve a Qwen2 checkpoint on one CPU thread, greedily.")
    parser.add_argument("folder", type=Path, help="checkpoint, as from from_gguf")
    parser.add_argument("port", type=int)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    web.run_app(application(given.folder), host="127.0.0.1", port=given.port, handler_cancellation=True)


if __name__ == "__main__":
    sys.exit(main())
