"""Speed of rollouts and of judges on the card, beside the limit that its memory bandwidth sets."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.generation import ContinuousBatchingConfig

from experiments.gpu import common, world
from experiments.gpu.common import device, synchronize
from experiments.gpu.measured import quality, rate_of
from fapo.config.sampling import Sampling
from fapo.data.miniature.sets import base_model, labelled
from fapo.data.miniature.world import tasks
from fapo.inference.transformers_model import LocalModel
from fapo.judge import GenRM, load_template
from fapo.types import Verdict


def seconds_of(work: Callable[[], Any], rounds: int) -> float:
    """Return the median seconds of `work` over some rounds, after one round that is not counted."""
    taken = []
    for _ in range(rounds + 1):
        synchronize()
        start = time.perf_counter()
        work()
        synchronize()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


def ceilings(tiny: bool) -> dict[str, float]:
    """Return two measured limits of the card: bytes a second of a copy, bfloat16 operations a second."""
    size = 1 << (20 if tiny else 30)
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=device())
    target = torch.empty_like(source)
    copied = seconds_of(lambda: target.copy_(source), 10)
    width = 256 if tiny else 8192
    left, right = (torch.randn(width, width, device=device(), dtype=torch.bfloat16) for _ in range(2))
    multiplied = seconds_of(lambda: left @ right, 10)
    return {
        "bandwidth_tb_s": round(2 * size / copied / 1e12, 3),
        "bf16_tflop_s": round(2 * width**3 / multiplied / 1e12, 1),
    }


def peak_gib() -> float:
    """Return the most GPU memory in use since `reset_peak`, in GiB."""
    return round(torch.cuda.max_memory_allocated() / 2**30, 3) if torch.cuda.is_available() else 0.0


def reset_peak() -> None:
    """Start to measure the peak memory anew, without memory that is only reserved."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def judges(base: Path | None, tiny: bool) -> dict[str, Any]:
    """Return verdicts of the miniature's GenRM in two precisions, and its speed.

    Args:
        base: Folder of SmolLM2, which is timed as a judge too; None leaves it out.
        tiny: Whether this is a dry run.
    """
    solutions = labelled("miniature:critic-test", 16 if tiny else 512)
    asked = [(s.problem, s.steps) for s in solutions]
    labels = [s.error_step is not None for s in solutions]
    result: dict[str, Any] = {"solutions": len(solutions)}
    verdicts: dict[str, Sequence[Verdict]] = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        model, tokenizer = common.load(base_model("miniature:genrm"), dtype)
        genrm = GenRM(
            load_template("compact"),
            LocalModel(model, tokenizer, Sampling(max_tokens=16 if tiny else 80), batch_size=512),
        )
        reset_peak()
        verdicts[name], speed = _timed(genrm, asked)
        kept = ("recall", "false_positive_rate", "J", "unparsable")
        found = quality([verdict.flawed for verdict in verdicts[name]], labels)
        result[name] = {key: found[key] for key in kept} | speed | {"peak_gib": peak_gib()}
    pairs = list(zip(verdicts["fp32"], verdicts["bf16"], strict=True))
    result["same_verdict"] = rate_of(sum(a.flawed == b.flawed for a, b in pairs), len(pairs))
    result["same_step"] = rate_of(
        sum((a.status, a.error_step) == (b.status, b.error_step) for a, b in pairs), len(pairs)
    )
    if base:
        model, tokenizer = common.load(base, torch.bfloat16)
        genrm = GenRM(
            load_template("locate"),
            LocalModel(model, tokenizer, Sampling(max_tokens=8 if tiny else 96), batch_size=256),
        )
        _, result["smollm2_bf16"] = _timed(genrm, asked[: 4 if tiny else 256])
    return result


def _timed(genrm: GenRM, asked: Sequence[Any]) -> tuple[Sequence[Verdict], dict[str, Any]]:
    """Return verdicts and their speed; a first pass over the same solutions loads the kernels and is not timed."""
    found: list[Sequence[Verdict]] = []
    seconds = seconds_of(lambda: found.append(asyncio.run(genrm.judge_steps(asked))), 2)
    verdicts = found[-1]
    return verdicts, {
        "judgements": len(asked),
        "seconds": round(seconds, 3),
        "judgements_s": round(len(asked) / seconds, 1),
        "tokens_s": round(sum(verdict.num_tokens for verdict in verdicts) / seconds),
    }


def prompts_of(tokenizer: Any, num: int) -> list[list[int]]:
    """Return tokenized questions of the world in sentences."""
    asked = [[{"role": "user", "content": world.question(task)}] for task in tasks(7, num, world.EASY)]
    prompts: list[list[int]] = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=True)[
        "input_ids"
    ]
    return prompts


@torch.no_grad()
def write_tokens(model: Any, padded: Mapping[str, torch.Tensor], num_tokens: int) -> None:
    """Sample `num_tokens` tokens for every prompt."""
    model.generate(**padded, max_new_tokens=num_tokens, min_new_tokens=num_tokens, do_sample=True, top_k=0)


def limit_tokens_s(model: Any, rows: int, mean_length: float, bytes_s: float) -> float:
    """Return the most tokens a second that a bandwidth allows.

    Each pass reads all weights and the cache of all rows: rows / ((weights + rows * cache) / bandwidth).

    Args:
        model: The model.
        rows: Number of sequences that are written at once.
        mean_length: Mean length of a sequence in tokens, while it is written.
        bytes_s: Bandwidth in bytes a second.
    """
    config = model.config
    size = next(model.parameters()).element_size()
    cache = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * size * mean_length
    weights = sum(p.numel() for p in model.parameters()) * size
    return float(rows * bytes_s / (weights + rows * cache))


def rollouts(base: Path, bytes_s: float, tiny: bool) -> dict[str, Any]:
    """Return the speed of transformers' generate() by precision and number of rows.

    Args:
        base: Folder of SmolLM2.
        bytes_s: Bandwidth of the card in bytes a second.
        tiny: Whether this is a dry run.
    """
    result: dict[str, Any] = {}
    num_tokens = 8 if tiny else 128
    for name, dtype, groups in (("bf16", torch.bfloat16, (64, 16)), ("fp32_tf32", torch.float32, (64,))):
        model, tokenizer = common.load(base, dtype)
        for num_prompts in (2,) if tiny else groups:
            asked = [tokens for tokens in prompts_of(tokenizer, num_prompts) for _ in range(8)]
            padded = tokenizer.pad({"input_ids": asked}, padding_side="left", return_tensors="pt").to(device())
            reset_peak()
            seconds = seconds_of(partial(write_tokens, model, padded, num_tokens), 1)
            limit = limit_tokens_s(model, len(asked), padded["input_ids"].shape[1] + num_tokens / 2, bytes_s)
            result[f"{name}_{len(asked)}_rows"] = {
                "seconds": round(seconds, 3),
                "ms_a_token": round(1000 * seconds / num_tokens, 2),
                "tokens_s": round(len(asked) * num_tokens / seconds),
                "limit_tokens_s": round(limit),
                "of_limit": round(len(asked) * num_tokens / seconds / limit, 4),
                "peak_gib": peak_gib(),
            }
        del model
    return result


def continuous(base: Path, bytes_s: float, tiny: bool, kept: bool) -> None:
    """Print the speed of generate_batch() (continuous batching), on the same rows as `rollouts`, as JSON lines.

    Args:
        base: Folder of SmolLM2.
        bytes_s: Bandwidth of the card in bytes a second.
        tiny: Whether this is a dry run.
        kept: Whether the engine is kept from one call to the next; TRL starts one for each call.
    """
    model, tokenizer = common.load(base, torch.bfloat16)
    num_tokens, num_prompts = (8, 2) if tiny else (128, 64)
    asked = [tokens for tokens in prompts_of(tokenizer, num_prompts) for _ in range(8)]
    settings = GenerationConfig(
        max_new_tokens=num_tokens, do_sample=True, top_k=0, eos_token_id=-1, pad_token_id=tokenizer.pad_token_id
    )
    small = {"num_blocks": 16, "block_size": 16, "max_batch_tokens": 64} if tiny else {}
    engine = ContinuousBatchingConfig(max_memory_percent=0.4, **small)
    for turn in ("engine_started", "engine_running") if kept else ("engine_for_each_call",):
        synchronize()
        start = time.perf_counter()
        outputs = model.generate_batch(
            asked, generation_config=settings, continuous_batching_config=engine, persistent_manager=kept
        )
        synchronize()
        seconds = time.perf_counter() - start
        tokens = sum(len(output.generated_tokens) for output in outputs.values())
        limit = limit_tokens_s(model, len(asked), len(asked[0]) + num_tokens / 2, bytes_s)
        found = {
            "requests": len(asked),
            "answers": len(outputs),
            "tokens": tokens,
            "seconds": round(seconds, 3),
            "tokens_s": round(tokens / seconds),
            "of_limit": round(tokens / seconds / limit, 4),
            "in_order": [list(output.prompt_ids) for output in outputs.values()] == [list(ids) for ids in asked],
        }
        print(json.dumps({turn: found}), flush=True)
