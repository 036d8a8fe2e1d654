"""Supervised fine-tuning of a pretrained chat model on generated examples: the warm-up of policy and judge."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

Example = tuple[str, str]
"""Message of the user, answer of the assistant."""


@dataclass(frozen=True)
class Schedule:
    """Length and speed of a training."""

    steps: int
    """Highest number of optimizer steps."""
    batch_size: int
    """Number of examples in a step."""
    learning_rate: float
    """Peak of a cosine schedule with WARMUP steps of warm-up."""
    seconds: float = math.inf
    """Time limit; the cosine ends with the steps or with the time, whichever comes first."""


WARMUP = 20
"""Number of steps in which the learning rate rises."""


def batch(tokenizer: Any, examples: list[Example], device: torch.device) -> tuple[torch.Tensor, ...]:
    """Return ids, attention mask and labels, [batch, length], padded on the right; labels are -100 for the prompt."""
    prompts = tokenizer.apply_chat_template(
        [[{"role": "user", "content": user}] for user, _ in examples], add_generation_prompt=True, return_dict=True
    )["input_ids"]
    answers = tokenizer([said + tokenizer.eos_token for _, said in examples], add_special_tokens=False)["input_ids"]
    length = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True))
    ids = torch.full((len(examples), length), tokenizer.pad_token_id)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        whole = torch.tensor(prompt + answer)
        ids[i, : len(whole)], mask[i, : len(whole)] = whole, 1
        labels[i, len(prompt) : len(whole)] = whole[len(prompt) :]
    return tuple(tensor.to(device, non_blocking=True) for tensor in (ids, mask, labels))


def loss_of(model: Any, ids: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean cross entropy of the labelled tokens; only these get logits."""
    hidden = model.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state[:, :-1]
    wanted = labels[:, 1:]
    learned = wanted != -100
    return functional.cross_entropy(model.lm_head(hidden[learned]).float(), wanted[learned])


def fit(
    model: Any, tokenizer: Any, examples: Iterator[list[Example]], schedule: Schedule, log: Callable[[str], None]
) -> dict[str, Any]:
    """Train the 32-bit weights of a model in place; return the number of steps and the losses.

    On a GPU products are computed in bfloat16.
    """
    device = next(model.parameters()).device
    cuda = device.type == "cuda"
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=schedule.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=cuda
    )
    model.train()
    losses: list[float] = []
    start = time.monotonic()
    for step in itertools.count():
        done = max(step / schedule.steps, (time.monotonic() - start) / schedule.seconds)
        if done >= 1:
            break
        rate = min(1.0, (step + 1) / WARMUP) * (0.51 + 0.49 * math.cos(math.pi * done))
        for group in optimizer.param_groups:
            group["lr"] = schedule.learning_rate * rate
        inputs = batch(tokenizer, next(examples), device)
        with torch.autocast("cuda", torch.bfloat16) if cuda else contextlib.nullcontext():
            loss = loss_of(model, *inputs)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 20 == 0 or step == schedule.steps - 1:
            losses.append(round(loss.item(), 4))
            log(f"step {step}, loss {losses[-1]}, {time.monotonic() - start:.1f} s")
    model.eval()
    return {"steps": step, "seconds": round(time.monotonic() - start, 1), "losses": losses}
