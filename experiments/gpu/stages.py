"""Stages of the experiment in sentences: base models by imitation, the judge's step-wise RL, the runs of the policy."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from experiments.gpu import common, examples, imitation, turns, world
from experiments.gpu.common import bound_memory, mark
from experiments.gpu.measured import JUDGED, REWARDS
from fapo.config import from_dict
from fapo.data import write_jsonl
from fapo.data.miniature.world import tasks
from fapo.trl.train import train

MEMORY = 0.45
"""Fraction of the card's memory that the stages of the policy and of the judge may use; see `common.bound_memory`."""
SAVE_EVERY = 5
"""Steps between two checkpoints of a policy's run, from which an interrupted run continues."""


@dataclass(frozen=True)
class Settings:
    """Settings that all stages share."""

    work: Path
    """Folder of models, data and runs."""
    base: Path
    """Folder of SmolLM2."""
    end: float
    """Time at which everything ends, by time.time()."""
    warm_up: float = 150.0
    """Seconds in which the policy learns by imitation; the judge has two thirds of it."""
    steps: int = 40
    """Training steps of a policy's run."""
    judge_rate: float = 3e-5
    """Learning rate of the judge's RL."""
    judge_rl: bool = True
    """Whether the judge learns by RL after imitation."""
    start: str = "shipped"
    """Writer that the policy imitates, one of examples.STARTS."""
    sets: tuple[str, ...] = ("validation", "harder")
    """Sets that are validated."""
    arms: tuple[str, ...] = ("grpo", "fapo")
    """Arms that share the card."""
    tiny: bool = False
    """Whether this is a dry run with a few rows and a few steps."""

    def size(self, num: int, tiny: int) -> int:
        """Return `num`, or `tiny` in a dry run."""
        return tiny if self.tiny else num


class Stage:
    """One stage, which runs in a process of its own and waits for the stages that it needs."""

    def __init__(self, name: str, settings: Settings) -> None:
        """Start a stage.

        Args:
            name: Name of the stage, for its log.
            settings: Settings that all stages share.
        """
        self.name, self.settings = name, settings
        self.work = settings.work
        self.work.mkdir(parents=True, exist_ok=True)

    def left(self) -> float:
        """Return the seconds that are left."""
        return self.settings.end - time.time()

    def wait(self, *folders: Path) -> None:
        """Wait until other stages have finished these folders; raise TimeoutError when the time is over."""
        while not all((folder / "DONE").exists() for folder in folders):
            if self.left() < 10:
                raise TimeoutError(f"{self.name}: not in time: {', '.join(map(str, folders))}")
            time.sleep(0.3)

    def log(self, text: str) -> None:
        """Print a line with the time that is left."""
        print(f"[{self.name} {self.left():5.0f} s left] {text}", flush=True)

    def save(self, model: Any, tokenizer: Any, folder: Path) -> None:
        """Write a trained model and mark its folder as complete."""
        shutil.rmtree(folder, ignore_errors=True)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        mark(folder)

    def note(self, name: str, value: Mapping[str, Any]) -> None:
        """Keep numbers of a stage for the results."""
        (self.work / f"{name}.json").write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")

    def policy(self) -> None:
        """Write the problem sets and the base policy, unless they are there."""
        settings, sets, folder = self.settings, self.work / "data", self.work / "policy"
        if not (sets / "DONE").exists():
            sets.mkdir(exist_ok=True)
            for name, (seed, num, difficulty, part) in examples.SETS.items():
                drawn = tasks(seed, settings.size(num, 32), difficulty, part)
                write_jsonl(sets / f"{name}.jsonl", [world.row(task, name) for task in drawn])
            mark(sets)
        self.wait(settings.base)
        if (folder / "DONE").exists():
            return
        bound_memory(MEMORY)
        model, tokenizer = common.load(settings.base)
        size, writer = settings.size(96, 4), examples.STARTS[settings.start]
        skills = imitation.Schedule(settings.size(420, 2), size, 8e-4, seconds=0.75 * settings.warm_up)
        habits = imitation.Schedule(settings.size(150, 2), size, 3e-4, seconds=0.25 * settings.warm_up)
        notes = {"skills": imitation.fit(model, tokenizer, examples.skill_examples(0, size), skills, self.log)}
        notes["habits"] = imitation.fit(model, tokenizer, examples.habit_examples(1, size, writer), habits, self.log)
        self.save(model, tokenizer, folder)
        self.note("policy", notes | {"peak_memory_gib": peak_memory()})

    def judge(self) -> None:
        """Write the judge: by imitation, then by step-wise RL if the settings and the time allow it."""
        settings, critic = self.settings, self.work / "critic"
        writer = examples.STARTS[settings.start]
        if not (critic / "DONE").exists():
            critic.mkdir(exist_ok=True)
            write_jsonl(critic / "train.jsonl", examples.critic_rows(10, settings.size(2048, 16), "train", writer))
            write_jsonl(critic / "test.jsonl", examples.critic_rows(20, settings.size(512, 8), "test", writer))
            mark(critic)
        self.wait(settings.base)
        bound_memory(MEMORY)
        imitated, final = self.work / "judge-sft", self.work / "judge"
        if not (imitated / "DONE").exists():
            model, tokenizer = common.load(settings.base)
            size, steps = settings.size(64, 4), settings.size(360, 2)
            schedule = imitation.Schedule(steps, size, 8e-4, seconds=settings.warm_up * 2 / 3)
            critiques = examples.critique_examples(2, size, steps, writer)
            self.note("judge", imitation.fit(model, tokenizer, critiques, schedule, self.log))
            self.save(model, tokenizer, imitated)
            del model
            free_memory()
        if (final / "DONE").exists():
            return
        trained: Path | None = None
        if settings.judge_rl:
            try:
                trained = self.train("judge", judge_config(settings), min(55.0, self.left() - 180))
            except Exception as error:  # the runs can use the judge by imitation instead
                self.log(f"step-wise RL failed: {type(error).__name__}: {error}")
        chosen = trained or imitated
        final.symlink_to(chosen.resolve())
        mark(final)

    def run(self, kind: str, rate: float) -> None:
        """Train the policy with one reward, or continue that run; end it when no other validation can be in time.

        Args:
            kind: Arm, one of measured.KINDS.
            rate: Learning rate.
        """
        judge = [self.work / "judge"] if kind in JUDGED else []
        self.wait(self.work / "data", self.work / "policy", *judge)
        bound_memory(share(kind, self.settings.arms))
        name = f"{kind}-{rate:g}"
        if not (self.work / "runs" / name / "model").exists():
            table = {"name": name, "output": str(self.work / "runs"), **run_config(self.settings, kind, rate)}
            turns.train_in_time(from_dict(table, name), self.settings.end - common.LAST_SECONDS)
            self.note(f"run-{name}", {"peak_memory_gib": peak_memory()})

    def train(self, name: str, table: Mapping[str, Any], limit: float) -> Path | None:
        """Run `fapo train`, or continue an interrupted run from its last checkpoint.

        Args:
            name: Name of the run.
            table: Its config, without name and output.
            limit: Seconds after which the run is asked to stop, with a checkpoint.

        Returns:
            Folder of the trained model, or of the last checkpoint; None if there is neither.
        """
        config = from_dict({"name": name, "output": str(self.work / "runs"), **table}, name)
        stop, asked = time.monotonic() + limit, False

        def progress(task: str, done: int, total: int, metrics: Mapping[str, float] | None = None) -> None:
            nonlocal asked
            self.log(turns.shown_step(task, done, total, metrics))
            if time.monotonic() > stop and done < total and not asked:
                asked = True  # a second signal would stop the run at once, without a checkpoint
                os.kill(os.getpid(), signal.SIGINT)

        folder = self.work / "runs" / name
        try:
            train(config, resume=folder.exists(), progress=progress)
        except KeyboardInterrupt:
            self.log(f"{name}: stopped for lack of time")
        self.note(f"run-{name}", {"peak_memory_gib": peak_memory()})
        return turns.newest(folder)


def share(kind: str, arms: Sequence[str]) -> float:
    """Return the fraction of the card's memory that an arm may use.

    All arms together have 90 %, one with a judge twice as much as GRPO, and none more than 32 %. A judge reads 256
    solutions at a time, whether all or the right ones: first-error credit takes more calls, and no more memory.

    Args:
        kind: Arm, one of measured.KINDS.
        arms: Arms that share the card.
    """
    weights = {arm: 2 if arm in JUDGED else 1 for arm in {kind, *arms}}
    return min(0.32, 0.9 * weights[kind] / sum(weights.values()))


def peak_memory() -> float:
    """Return the most GPU memory that this process has reserved so far, in GiB."""
    return round(torch.cuda.max_memory_reserved() / 2**30, 2) if torch.cuda.is_available() else 0.0


def free_memory() -> None:
    """Return memory to the card that is reserved but not in use."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def run_config(settings: Settings, kind: str, rate: float) -> dict[str, Any]:
    """Return the config of a policy's run, without name and output.

    Args:
        settings: Settings of the stages.
        kind: Arm, one of measured.KINDS; GRPO is not judged.
        rate: Learning rate.
    """
    size, data = settings.size, settings.work / "data"
    judge = {
        "kind": "local",
        "model": str((settings.work / "judge").resolve()),
        "template": "compact",
        "max_tokens": size(168, 16),
        "temperature": 0.6,
    }
    return {
        "task": "policy",
        "model": {"path": str(settings.work / "policy")},
        "data": {
            "train": str(data / "train.jsonl"),
            "validation": {name: str(data / f"{name}.jsonl") for name in settings.sets},
        },
        "rollout": {"num_prompts": size(48, 2), "group_size": size(8, 2), "max_tokens": size(108, 16)},
        "reward": REWARDS[kind],
        **({"judge": judge} if kind in JUDGED else {}),
        "optim": {
            "steps": size(settings.steps, 2),
            "learning_rate": rate,
            "warmup_steps": size(5, 0),
            "micro_batch_size": size(32, 2),
        },
        "validation": {"every": size(10, 1), "save_every": size(SAVE_EVERY, 1), "limit": size(512, 8)},
        "trl": {"per_device_eval_batch_size": size(512, 8)},
    }


def judge_config(settings: Settings) -> dict[str, Any]:
    """Return the config of the judge's step-wise RL, without name and output."""
    size, critic = settings.size, settings.work / "critic"
    return {
        "task": "genrm",
        "model": {"path": str(settings.work / "judge-sft")},
        "genrm": {"template": "compact"},
        "data": {"train": str(critic / "train.jsonl"), "validation": {"test": str(critic / "test.jsonl")}},
        "rollout": {"num_prompts": size(32, 2), "group_size": size(8, 2), "max_tokens": size(168, 16)},
        "reward": {"kind": "genrm_step"},
        "optim": {
            "steps": size(10, 1),
            "learning_rate": settings.judge_rate,
            "warmup_steps": size(2, 0),
            "micro_batch_size": size(32, 2),
        },
        # a judge that was stopped for lack of time is used too: its checkpoint needs only the weights
        "validation": {"every": size(10, 1), "save_every": 10_000, "limit": size(512, 8), "temperature": 0.6},
        "trl": {"save_only_model": True, "per_device_eval_batch_size": size(512, 8)},
    }
