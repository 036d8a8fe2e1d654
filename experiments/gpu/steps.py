"""Seconds of a training step by part: TRL's trainer, ours, and FAPO judged while a GPU generates, and afterwards."""

from __future__ import annotations

import asyncio
import hashlib
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback

from experiments.gpu import common, world
from experiments.gpu.common import synchronize
from experiments.gpu.parity import Recorder, row_of
from experiments.gpu.speed import peak_gib, reset_peak
from fapo.config import Config, FapoReward, from_dict
from fapo.data.miniature.world import tasks
from fapo.rewards import PolicyScorer
from fapo.rewards.checkers import FunctionChecker
from fapo.trl import FlawedAwareReward, judge_ahead
from fapo.trl.arguments import grpo_config
from fapo.trl.trainer import Timed, Trainer
from fapo.types import Problem, Rollout, Verdict

JUDGE_PER_ROLLOUT = 18 / 42
"""Time of the judge over time of the rollouts, in the paper's 7B run."""
SLOTS = 16
"""Number of judgements at once."""


class StepTimes(TrainerCallback):
    """Callback that measures whole steps, the optimizer included, and splits them by the trainer's clock."""

    def __init__(self) -> None:
        """Start without a trainer; set `trainer` before training."""
        self.trainer: Any = None
        self.start = 0.0
        self.laps: list[dict[str, float]] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock."""
        synchronize()
        self.trainer.clock.lap()
        self.start = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Keep the seconds of the step."""
        synchronize()
        step, spent = time.perf_counter() - self.start, self.trainer.clock.lap()
        rollout, score = spent["time/rollout"], spent["time/score"]
        self.laps.append({"step": step, "rollout": rollout, "score": score, "update": step - rollout - score})


class SlowJudge:
    """Judge that finds no flaw and takes its time, for SLOTS rollouts at once."""

    def __init__(self, seconds: float) -> None:
        """Make a judge.

        Args:
            seconds: Mean time of a judgement; single ones take 0.5 to 1.5 times as long.
        """
        self.seconds, self.asked = seconds, 0
        self.free: asyncio.Semaphore | None = None

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Verdict]:
        """Return one verdict for each rollout, in order."""
        self.free = self.free or asyncio.Semaphore(SLOTS)  # it belongs to the event loop that asks
        return await asyncio.gather(*(self.one(rollout, self.free) for rollout in rollouts))

    async def one(self, rollout: Rollout, free: asyncio.Semaphore) -> Verdict:
        """Return the verdict on a rollout when a slot has been free for its time."""
        self.asked += 1
        async with free:
            await asyncio.sleep(self.seconds * (0.5 + chance(rollout.response)))
        return Verdict.from_step(None, "no fault")


def chance(text: str) -> float:
    """Return a number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") / 2**32


async def by_chance(response: str, _: str, __: Problem) -> bool:
    """Return that half of all answers are correct, by chance: an untrained model has too few to time anything."""
    return chance(response) < 0.5


def steps(base: Path, tiny: bool, left: Callable[[], float]) -> dict[str, Any]:
    """Return the seconds of a step by part, for each side, on the same rollouts with equal rewards.

    Args:
        base: Folder of SmolLM2.
        tiny: Whether this is a dry run.
        left: Function that returns the seconds that are left.
    """
    counted = 1 if tiny else 4
    config = step_config(base, tiny, counted + 1)
    result: dict[str, Any] = {
        "trl": turn(config, base, Timed, None, ahead=False),
        "fapo_trainer": turn(config, base, Trainer, None, ahead=False),
    }
    ours = result["fapo_trainer"]
    pace = ours["seconds"]["rollout"] * JUDGE_PER_ROLLOUT * SLOTS / max(1, ours["right"] / counted)
    for name, ahead in (("judged_ahead", True), ("judged_after", False)):
        if left() < 15:
            result[name] = {"left_out": "no time"}
            continue
        result[name] = turn(config, base, Trainer, SlowJudge(pace), ahead=ahead)
        result[name]["step_over_grpo"] = round(result[name]["seconds"]["step"] / ours["seconds"]["step"], 4)
        print(json.dumps({name: result[name]}), flush=True)
    result["trl_step_over_fapo_trainer"] = round(result["trl"]["seconds"]["step"] / ours["seconds"]["step"], 4)
    result["judge"] = {"slots": SLOTS, "mean_seconds": round(pace, 4)}
    return result


def step_config(base: Path, tiny: bool, num_steps: int) -> Config:
    """Return a config with a learning rate that moves no weight, so that all sides see the same rollouts.

    Args:
        base: Folder of SmolLM2.
        tiny: Whether this is a dry run.
        num_steps: Number of training steps.
    """
    num_prompts, group, max_tokens, start = (2, 2, 24, 2) if tiny else (32, 8, 160, 20)
    return from_dict(
        {
            "name": "steps",
            "task": "policy",
            "output": "/tmp/steps",
            "model": {"path": str(base)},
            "data": {"train": "miniature:train"},
            "rollout": {"num_prompts": num_prompts, "group_size": group, "max_tokens": max_tokens},
            "reward": {"kind": "outcome"},
            "optim": {
                "steps": num_steps,
                "learning_rate": 1e-30,
                "warmup_steps": 0,
                "micro_batch_size": num_prompts * group // 2 if tiny else 32,
            },
            # the end token becomes likelier with every token, so that lengths differ and few are cut off
            "trl": {"save_strategy": "no", "generation_kwargs": {"exponential_decay_length_penalty": [start, 1.04]}},
        }
    )


def turn(config: Config, base: Path, kind: type[Timed], judge: SlowJudge | None, *, ahead: bool) -> dict[str, Any]:
    """Train for the steps of a config and return the median seconds of a step by part, without the first step.

    Args:
        config: Config of `step_config`.
        base: Folder of SmolLM2.
        kind: Class of the trainer.
        judge: Judge of the FAPO reward; None trains with the outcome reward.
        ahead: Whether rollouts are judged while others are being written.
    """
    torch.manual_seed(0)
    model, tokenizer = common.load(base)
    model.train()
    problems = [
        Problem(str(i), world.question(task), task.answer(task.values[-1]), "sentences")
        for i, task in enumerate(tasks(8, 1024, world.EASY))
    ]
    rows = [row_of(problem, [{"role": "user", "content": problem.text}]) for problem in problems]
    recorder, times = Recorder(config), StepTimes()
    reward = FapoReward() if judge else config.reward
    scorer = PolicyScorer(reward, judge, config.rollout.max_tokens, check=FunctionChecker(by_chance))
    trainer = kind(
        model=model,
        processing_class=tokenizer,
        reward_funcs=FlawedAwareReward(scorer, recorder.record),
        args=grpo_config(config),
        train_dataset=Dataset.from_list(rows),
        callbacks=[times],
    )
    times.trainer = trainer
    trainer.recorder = recorder
    trainer.remove_callback(PrinterCallback)
    if ahead:
        judge_ahead(trainer)
    reset_peak()
    trainer.train()
    scored = recorder.scored[config.rollout.num_prompts * config.rollout.group_size :]
    lengths = sorted(s.rollout.num_tokens for s in scored)
    return {
        "seconds": {part: round(statistics.median(lap[part] for lap in times.laps[1:]), 3) for part in times.laps[0]},
        "all_steps": [round(lap["step"], 3) for lap in times.laps],
        "losses": [row["loss"] for row in trainer.state.log_history if "loss" in row],
        "peak_gib": peak_gib(),
        "right": sum(s.correct for s in scored),
        "asked": judge.asked if judge else 0,
        "tokens": {
            "median": lengths[len(lengths) // 2],
            "90 %": lengths[len(lengths) * 9 // 10],
            "most": lengths[-1],
        },
    }
