"""LoRA on the card: an interrupted run against whole ones, and policy and judge on one copy of the weights."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from experiments.gpu import world
from experiments.gpu.speed import peak_gib, reset_peak
from fapo.config import LocalJudge, from_dict
from fapo.data import read_jsonl, write_jsonl
from fapo.data.miniature.world import tasks
from fapo.inference.pretrained import load_weights
from fapo.judge.from_config import open_judge
from fapo.trl.train import train
from fapo.types import Problem, Rollout

Settings = dict[str, Any]


def settings(base: Path, work: Path, name: str, tiny: bool) -> Settings:
    """Return the settings of a run with an adapter, on questions of the world in sentences.

    Args:
        base: Folder of SmolLM2.
        work: Folder of the runs; the data are written to it.
        name: Name of the run.
        tiny: Whether this is a dry run.
    """
    work.mkdir(parents=True, exist_ok=True)
    data = work / "questions.jsonl"
    if not data.exists():
        write_jsonl(data, [world.row(task, "sentences") for task in tasks(9, 512, world.EASY)])
    num_prompts, group, max_tokens, decay = (2, 2, 24, [2, 1.3]) if tiny else (32, 8, 160, [20, 1.04])
    return {
        "name": name,
        "task": "policy",
        "output": str(work),
        "model": {"path": str(base), "lora": {"rank": 16, "save": "adapter"}},
        "data": {"train": str(data)},
        "rollout": {"num_prompts": num_prompts, "group_size": group, "max_tokens": max_tokens},
        "reward": {"kind": "outcome"},
        "optim": {"steps": 4, "learning_rate": 1e-3, "warmup_steps": 0, "micro_batch_size": 2 if tiny else 32},
        "validation": {"save_every": 2},
        # the end token becomes likelier with every token, so that lengths differ and few are cut off
        "trl": {"generation_kwargs": {"exponential_decay_length_penalty": decay}},
    }


class Interrupted(Exception):
    """End of a run that shall be resumed."""


def resume(base: Path, work: Path, tiny: bool) -> dict[str, Any]:
    """Return how far an interrupted run differs from a whole one, beside how far two whole ones differ.

    Args:
        base: Folder of SmolLM2.
        work: Folder of the runs.
        tiny: Whether this is a dry run.
    """

    def interrupt(_name: str, step: int, *_: Any) -> None:
        if step == 3:
            raise Interrupted

    def run(name: str, **options: Any) -> Path:
        table = settings(base, work, name, tiny)
        # rewards of a model that solves nothing are all equal; those of short and long answers are not
        table["reward"]["overlong_buffer"] = table["rollout"]["max_tokens"] - 1
        return train(from_dict(table), **options)

    shutil.rmtree(work, ignore_errors=True)
    whole, again = run("whole"), run("again")
    try:
        run("parts", progress=interrupt)
    except Interrupted:
        parts = run("parts", resume=True)
    checkpoint = whole / "checkpoints/checkpoint-4"
    size = sum(file.stat().st_size for file in checkpoint.iterdir())
    return {
        "interrupted_and_whole": difference(parts, whole),
        "two_whole_ones": difference(again, whole),
        "checkpoint_mib": round(size / 2**20, 2),
        "adapter_mib": round((checkpoint / "adapter_model.safetensors").stat().st_size / 2**20, 2),
        "trained": max(float(w.abs().max()) for name, w in adapter_of(whole).items() if "lora_B" in name) > 0,
    }


def adapter_of(run: Path) -> dict[str, torch.Tensor]:
    """Return the adapter that a run has trained."""
    return load_file(run / "model/adapter_model.safetensors")


def difference(first: Path, second: Path) -> dict[str, Any]:
    """Return the largest difference of two trained adapters, and the rate of equal rollouts."""
    ours, theirs = adapter_of(first), adapter_of(second)
    said = [[row["response"] for row in read_jsonl(run / "rollouts.jsonl")] for run in (first, second)]
    return {
        "weights": max(float((ours[name] - theirs[name]).abs().max()) for name in theirs),
        "same_rollouts": statistics.fmean(a == b for a, b in zip(*said, strict=True)),
    }


def adapter_judge(base: Path, work: Path, tiny: bool) -> dict[str, Any]:
    """Return memory and seconds of a step: policy alone, with an adapter judge, and with a judge of its own weights.

    The judge is an adapter with random weights, which writes as many tokens as it may: verdicts do not matter here.

    Args:
        base: Folder of SmolLM2.
        work: Folder of the runs.
        tiny: Whether this is a dry run.
    """
    import peft

    shutil.rmtree(work, ignore_errors=True)
    model = load_weights(str(base.resolve()), torch.float32)
    torch.manual_seed(1)
    random = peft.LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    peft.get_peft_model(model, random).save_pretrained(work / "judge")
    del model
    judge: Settings = {
        "model": str(work / "judge"),
        "template": "compact",
        "max_tokens": 8 if tiny else 96,
        "all": True,
    }
    sides: dict[str, Settings] = {
        "alone": {},
        "adapter": {"judge": {**judge, "kind": "adapter"}, "reward": {"kind": "fapo"}},
        "separate": {"judge": {**judge, "kind": "local"}, "reward": {"kind": "fapo"}},
    }
    result: dict[str, Any] = {}
    for name, changed in sides.items():
        result[name] = measured({**settings(base, work, name, tiny), **changed})
        print(json.dumps({name: result[name]}), flush=True)
    alone = result["alone"]
    for name in ("adapter", "separate"):
        result[name]["gib_over_alone"] = round(result[name]["peak_gib"] - alone["peak_gib"], 3)
        result[name]["step_over_alone"] = round(result[name]["step_seconds"] / alone["step_seconds"], 3)
    return result | {"same_critiques": same_critiques(work, judge)}


def measured(table: Settings) -> dict[str, Any]:
    """Train, and return peak memory and the median seconds of a step by part, without the first step."""
    # a learning rate that moves no weight, so that all sides see the same rollouts
    table["optim"] = table["optim"] | {"learning_rate": 1e-30, "steps": 3}
    gc.collect()
    reset_peak()
    start = time.monotonic()
    run = train(from_dict(table))
    rows = [row for row in read_jsonl(run / "metrics.jsonl") if row["kind"] == "train"][1:]
    parts = {part: statistics.median(row[f"time/{part}"] for row in rows) for part in ("rollout", "score", "update")}
    judged = [row for row in read_jsonl(run / "rollouts.jsonl") if row["status"] != "skipped"]
    return {
        "peak_gib": peak_gib(),
        "step_seconds": round(sum(parts.values()), 3),
        "seconds": {part: round(value, 3) for part, value in parts.items()},
        "judged": len(judged),
        "run_seconds": round(time.monotonic() - start, 1),
    }


def same_critiques(work: Path, judge: Settings) -> float:
    """Return the rate of critiques of the adapter judge that are those of the adapter loaded alone."""
    rows = [row for row in read_jsonl(work / "adapter/rollouts.jsonl") if row["status"] != "skipped"]
    rollouts = [Rollout(Problem("", row["problem"], row["reference"]), row["response"]) for row in rows]

    async def critiques() -> list[str]:
        async with open_judge(LocalJudge(**judge)) as alone:
            return [verdict.critique for verdict in await alone(rollouts)]

    found = asyncio.run(critiques())
    return statistics.fmean(a == row["critique"] for a, row in zip(found, rows, strict=True))
