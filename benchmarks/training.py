"""Measure the parts of a training step: the Trainer of fapo against the GRPOTrainer of TRL, on the same rollouts.

python -m benchmarks.training [--quick] [--rounds 3] [--steps 2] [--processor] [--config FILE] [KEY=VALUE ...]

All sides train the same config from the same weights with the same seed and the same reward object. Sides:

    Trainer        fapo
    GRPOTrainer    TRL with the arguments that fapo sets
    defaults       TRL with its own defaults for them: bfloat16 and gradient checkpointing

The learning rate is too small to change a weight. Trainer and GRPOTrainer therefore have the same rollouts and
rewards in every step, and their losses can be compared. A first step, which is not counted, warms each trainer up.
Parts: rollout (generation), score (answers and judge), update (loss, backward, optimizer, and the rest of a step).
With --processor the times are processor seconds of this process, which a busy machine changes little, and the side with
TRL's defaults, by far the slowest, is left out.
The lower bound for the rollouts is 2 x parameters x tokens, at the rate of a matrix product of the size of the model.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
from transformers.utils import logging as transformers_logging

from benchmarks.measuring.turns import PARTS, in_turn, machine, ratios, spread
from fapo.config.reader import load
from fapo.config.schema import Config
from fapo.inference.models import model_folder
from fapo.rewards.critique_scorer import Scorer
from fapo.rewards.from_config import make_scorer
from fapo.rewards.scorer import batch_advantages
from fapo.training.datasets import TRAIN, Example, load_sets
from fapo.trl.arguments import grpo_config
from fapo.trl.reward import FlawedAwareReward
from fapo.trl.trainer import Timed, Trainer
from fapo.types import ScoredRollout

CONFIG = Path(__file__).parents[1] / "src/fapo/data/miniature/configs/policy.toml"
STILL = (
    "optim.learning_rate=1e-30",
    "optim.warmup_steps=0",
    "optim.weight_decay=0.0",
    "data.validation=",
    "trl.save_strategy=no",
)
DEFAULTS = ("model.dtype=mixed", "trl.gradient_checkpointing=true")
"""Defaults of TRL for arguments that fapo sets."""


class _Watched:
    """Mixin that keeps the loss of each step and the time of its parts."""

    losses: list[float]
    laps: list[dict[str, float]]

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().training_step(*args, **kwargs)  # type: ignore[misc]
        self.losses.append(float(loss))
        lap = self.clock.lap()  # type: ignore[attr-defined]
        self.laps.append({part: lap[f"time/{part}"] for part in PARTS})
        return loss


class Stock(_Watched, Timed):
    """The trainer of TRL with a clock."""


class Lean(_Watched, Trainer):
    """The trainer of fapo."""


class Recorder:
    """Recorder of a run that keeps the rollouts in memory."""

    def __init__(self, config: Config) -> None:
        self.config, self.evaluating, self.parts = config, None, ()
        self.batches: dict[str, list[ScoredRollout]] = {TRAIN: []}

    def record(self, scored: Sequence[ScoredRollout], _: Any) -> None:
        self.batches[TRAIN].extend(scored)

    def write(self) -> None: ...

    def summary(self, _: str) -> dict[str, float]:
        return {}


def made(kind: type, config: Config, reward: FlawedAwareReward, recorder: Recorder, examples: Sequence[Example]) -> Any:
    """Return a trainer of the model of the config that starts from the beginning."""
    torch.manual_seed(config.seed)
    path = model_folder(config.model.path)
    problems = [(example.prompt, example.problem) for example in examples]
    trainer = kind(
        model=AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, config.model.dtype)),
        processing_class=AutoTokenizer.from_pretrained(path, padding_side="left"),
        reward_funcs=reward,
        args=grpo_config(config),
        train_dataset=Dataset.from_list(
            [
                {"prompt": prompt, "id": p.id, "problem": p.text, "reference": p.reference, "source": p.source}
                for prompt, p in problems
            ]
        ),
    )
    trainer.recorder, trainer.losses, trainer.laps = recorder, [], []
    trainer.remove_callback(PrinterCallback)
    return trainer


@dataclass(frozen=True)
class Turn:
    """Result of one training from the start."""

    losses: list[float]
    """Losses of all steps."""
    laps: list[dict[str, float]]
    """Seconds of each part of the counted steps."""
    idle: float
    """Rate of rollouts with advantage 0."""
    tokens: float
    """Mean number of generated tokens of a step."""
    size: tuple[int, int]
    """Number of parameters of the model, and its hidden size."""


def turn(
    kind: type[Stock] | type[Lean],
    config: Config,
    scorer: Scorer,
    examples: Sequence[Example],
    now: Callable[[], float] = time.perf_counter,
) -> Turn:
    """Train from the start and return the losses and times; `now` returns the present time in seconds."""
    recorder = Recorder(config)
    trainer = made(kind, config, FlawedAwareReward(scorer, recorder.record), recorder, examples)
    trainer.clock.now = now
    trainer.train()
    scored = recorder.batches[TRAIN]
    groups = [i // config.rollout.group_size for i in range(len(scored))]
    num_idle = sum(abs(advantage) < 1e-9 for advantage in batch_advantages(scored, groups, config.reward).tolist())
    tokens = sum(s.rollout.num_tokens for s in scored) / len(trainer.laps)
    size = trainer.model.num_parameters(), trainer.model.config.hidden_size
    return Turn(trainer.losses, trainer.laps[1:], num_idle / len(scored), tokens, size)


def matmul_rate(num_rows: int, width: int, num_products: int = 200) -> float:
    """Return the floating point operations per second of [num_rows, width] @ [width, 4 width]."""
    rows, weights = torch.randn(num_rows, width), torch.randn(width, 4 * width)
    for _ in range(num_products):
        rows @ weights
    start = time.perf_counter()
    for _ in range(num_products):
        rows @ weights
    return num_products * 2 * num_rows * 4 * width**2 / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="16 prompts, one round of one step")
    parser.add_argument("--rounds", type=int, help="turns of each side (default 3)")
    parser.add_argument("--steps", type=int, help="counted steps of a turn (default 2)")
    parser.add_argument("--processor", action="store_true", help="processor seconds, without the side `defaults`")
    parser.add_argument("--config", default=CONFIG, help="a TOML file (default: that of the miniature's policy)")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="replace settings of the config")
    given = parser.parse_args()
    num_steps = given.steps or (1 if given.quick else 2)
    small = ["rollout.num_prompts=16"] if given.quick else []
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore", FutureWarning)
    transformers_logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        steps = [f"optim.steps={num_steps + 1}", f"output={folder!r}"]
        settings = [*small, *given.settings, *STILL, *steps]
        config, defaults = load(given.config, settings), load(given.config, [*settings, *DEFAULTS])
        examples = load_sets(config)[TRAIN]
        scorer = make_scorer(config, (example.solution for example in examples if example.solution))
        now = time.process_time if given.processor else time.perf_counter
        sides = {
            "defaults": lambda _: turn(Stock, defaults, scorer, examples, now),
            "GRPOTrainer": lambda _: turn(Stock, config, scorer, examples, now),
            "Trainer": lambda _: turn(Lean, config, scorer, examples, now),
        }
        if given.processor:
            del sides["defaults"]
        with contextlib.redirect_stdout(io.StringIO()):
            results = in_turn(sides, given.rounds or (1 if given.quick else 3))
    rollout = config.rollout
    stock, lean = results["GRPOTrainer"], results["Trainer"]
    one, num_rollouts = lean[0], rollout.num_prompts * rollout.group_size
    print(f"{num_rollouts} rollouts a step, {one.idle:.0%} of them with advantage 0")
    print(f"median {'processor ' if given.processor else ''}seconds a step")
    for name, turns in results.items():
        texts = (f"{part} {statistics.median(lap[part] for turn in turns for lap in turn.laps):.2f}" for part in PARTS)
        print(f"{name:12s} {', '.join(texts)}")
    for name, part in itertools.product([name for name in sides if name != "Trainer"], (*PARTS, "step")):
        times = [
            [sum(lap[p] for lap in turn.laps for p in (PARTS if part == "step" else [part])) for turn in turns]
            for turns in (results[name], lean)
        ]
        print(f"{name} / Trainer, {part:8s} {spread(ratios(*times))}")
    apart = [
        abs(a - b)
        for first, second in zip(stock, lean, strict=True)
        for a, b in zip(first.losses, second.losses, strict=True)
    ]
    typical = statistics.mean(map(abs, stock[0].losses))
    print(f"GRPOTrainer's losses differ by {max(apart):.1e} at most; their mean size is {typical:.1e}")
    seconds = statistics.median(lap["rollout"] for turn in lean for lap in turn.laps)
    parameters, rate = one.size[0], matmul_rate(num_rollouts, one.size[1])
    floor = 2 * parameters * one.tokens / rate
    print(
        f"rollouts: {one.tokens / seconds:.0f} tokens/s; the lower bound, {parameters / 1e6:.2f} M parameters at "
        f"{rate / 1e9:.0f} GFLOP/s, is {floor:.3f} s a step, {seconds / floor:.1f} times less"
    )
    print(machine("fapo", "trl", "transformers", "torch"), f"{torch.get_num_threads()} threads", sep=", ")


if __name__ == "__main__":
    main()
