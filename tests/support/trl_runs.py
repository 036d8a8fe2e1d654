"""Training runs with TRL of a few seconds: their settings, and what they leave behind, compared."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fapo.data.jsonl import read_jsonl
from fapo.trl.trainer import Trainer

ONE_THREAD = {"OMP_NUM_THREADS": "1"}
GROUP, STEPS = 4, 6
Row = dict[str, Any]


def settings(output: Path, policy: Path, **changed: Any) -> Row:
    """Return settings of a run of a few seconds. Dotted keys replace settings; None removes one."""
    table: Row = {
        "name": "run",
        "task": "policy",
        "output": str(output),
        "model": {"path": str(policy)},
        "data": {"train": "miniature:train", "limit": 256, "validation": {"easy": "miniature:validation"}},
        "rollout": {"max_tokens": 24, "num_prompts": 8, "group_size": GROUP},
        "reward": {"kind": "fapo"},
        "judge": {"kind": "oracle"},
        "optim": {"steps": STEPS, "learning_rate": 1e-3, "warmup_steps": 0},
        "validation": {"every": 2, "save_every": 2, "limit": 16},
    }
    for key, value in changed.items():
        *parents, last = key.split(".")
        inner = table
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
        if value is None:
            del inner[last]
    return table


def rows(folder: Path, name: str) -> list[Row]:
    return list(read_jsonl(folder / f"{name}.jsonl"))


def all_rollouts(folder: Path) -> list[Row]:
    """Return the rollouts of all processes, in an order that does not depend on the processes."""
    found = [row for file in folder.glob("rollouts*.jsonl") for row in read_jsonl(file)]
    return sorted(found, key=lambda row: json.dumps(row, sort_keys=True))


def curve(folder: Path) -> list[Row]:
    """Return the metrics, without those of time, and of requests that a repeated step takes from the cache."""
    timed = ("seconds", "time/", "step_time", "runtime", "per_second", "profiling", "epoch")
    timed += ("judge/requests", "judge/prompt_tokens", "judge/completion_tokens", "judge/from_cache")
    return [{k: v for k, v in row.items() if not any(word in k for word in timed)} for row in rows(folder, "metrics")]


def assert_same_curve(ours: Path, theirs: Path) -> None:
    """Compare the metrics of two runs."""
    mine, its = curve(ours), curve(theirs)
    assert [(row.pop("step"), row.pop("kind")) for row in mine] == [(row.pop("step"), row.pop("kind")) for row in its]
    for one, other in zip(mine, its, strict=True):
        known, expected = ({k: math.nan if v is None else v for k, v in row.items()} for row in (one, other))
        assert known == pytest.approx(expected, rel=1e-4, abs=1e-6, nan_ok=True)


def assert_same_weights(ours: Path, theirs: Path) -> None:
    """Compare the models of two runs, or their adapters, to the last bit."""
    mine, its = (load_file(next((folder / "model").glob("*.safetensors"))) for folder in (ours, theirs))
    assert mine.keys() == its.keys()
    assert all(torch.equal(mine[name], its[name]) for name in its)


def watch_advantages(patch: pytest.MonkeyPatch) -> list[float]:
    """Return a list to which each rollout's advantage is added when TRL trains on it."""
    trained: list[float] = []
    compute_loss = Trainer._compute_loss

    def seen(self: Trainer, model: Any, inputs: Any) -> Any:
        trained.extend(inputs["advantages"].tolist())
        return compute_loss(self, model, inputs)

    patch.setattr(Trainer, "_compute_loss", seen)
    return trained


def replay(output: Path, table: Row, *nums: int) -> dict[int, Path]:
    """Train a config on the same rollouts with each number of processes; return the run folders by that number."""
    (output / "config.json").write_text(json.dumps(table), encoding="utf-8")
    command = [sys.executable, "-m", "tests.support.replayed_runs", str(output / "config.json"), *map(str, nums)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200, env={**os.environ, **ONE_THREAD})
    assert done.returncode == 0, done.stderr[-3000:]
    return {num: output / f"processes-{num}" for num in nums}


def assert_four_train_as_one(output: Path, policy: Path, num_prompts: int, **changed: Any) -> Path:
    """Train with one process and with four, on the same rollouts; compare, and return the run folder of the one."""
    common = {
        "rollout": {"max_tokens": 64, "num_prompts": num_prompts, "group_size": GROUP},
        "judge.canaries": "miniature:critic-test",
        "judge.canary_rate": 0.5,
        "data.validation": None,
        "trl": {"save_strategy": "no"},
    }
    one, four = replay(output, settings(output, policy, **changed, **common), 1, 4).values()
    assert all_rollouts(four) == all_rollouts(one)
    assert_same_curve(four, one)
    return one
