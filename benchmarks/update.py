"""Measure the update by the rate of rollouts with zero advantage: the loss of fapo's Trainer against that of TRL.

python -m benchmarks.update [--quick] [--rounds 5] [--config FILE] [KEY=VALUE ...]

One batch is generated and scored. Then the advantages of a part of its rollouts are set to zero, those of the others to
1 or -1, and the loss and its gradient are computed by both. The times are processor seconds of this process, so that
other work on the machine changes them little.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
import warnings
from typing import Any

import torch
from transformers.utils import logging as transformers_logging
from trl import GRPOTrainer

from benchmarks.measuring.turns import machine
from benchmarks.training import CONFIG, STILL, Lean, Recorder, made
from fapo.config.reader import load
from fapo.rewards.from_config import make_scorer
from fapo.training.datasets import TRAIN, load_sets
from fapo.trl.reward import FlawedAwareReward
from fapo.trl.trainer import Trainer

RATES = (0.0, 0.25, 0.5, 0.75)
"""Rates of rollouts with zero advantage."""
SIDES = {"TRL": GRPOTrainer, "fapo": Trainer}


def with_idle(inputs: dict[str, Any], rate: float) -> dict[str, Any]:
    """Return a batch in which this rate of the rollouts, every few of them, has zero advantage."""
    index = torch.arange(len(inputs["advantages"]))
    idle = ((index + 1) * rate).floor() > (index * rate).floor()
    return {**inputs, "advantages": torch.where(idle, 0.0, 1.0 - 2.0 * (index % 2))}


def seconds(trainer: Any, side: type, inputs: dict[str, Any]) -> float:
    """Return the processor seconds of the loss of a batch and its gradient, as one of SIDES computes them."""
    trainer.model.zero_grad()
    start = time.process_time()
    side._compute_loss(trainer, trainer.model, inputs).backward()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="16 prompts, one round")
    parser.add_argument("--rounds", type=int, help="turns of each side (default 5)")
    parser.add_argument("--config", default=CONFIG, help="a policy's TOML file (default: the miniature's)")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="replace settings of the config")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore", FutureWarning)
    transformers_logging.disable_progress_bar()
    small = ["rollout.num_prompts=16"] if given.quick else []
    with tempfile.TemporaryDirectory() as folder:
        config = load(given.config, [*small, *given.settings, *STILL, f"output={folder!r}"])
        examples, recorder = load_sets(config)[TRAIN], Recorder(config)
        trainer = made(Lean, config, FlawedAwareReward(make_scorer(config), recorder.record), recorder, examples)
        trainer.current_gradient_accumulation_steps = 1
        trainer.model.train()
        rollout, rows = config.rollout, trainer.train_dataset
        prompts = [rows[i] for i in range(rollout.num_prompts) for _ in range(rollout.group_size)]
        inputs = trainer._generate_and_score_completions(prompts)
        print(f"{len(prompts)} rollouts; median processor seconds of the loss and its gradient")
        for rate in RATES:
            batch = with_idle(inputs, rate)
            turns = [
                {name: seconds(trainer, side, batch) for name, side in SIDES.items()}
                for _ in range(given.rounds or (1 if given.quick else 5))
            ]
            ratios = [turn["TRL"] / turn["fapo"] for turn in turns]
            times = (f"{name} {statistics.median(turn[name] for turn in turns):.2f}" for name in SIDES)
            print(
                f"{rate:.0%} with zero advantage: {', '.join(times)}, TRL / fapo {statistics.median(ratios):.2f} "
                f"({min(ratios):.2f} to {max(ratios):.2f})"
            )
    print(machine("fapo", "trl", "transformers", "torch"), f"{torch.get_num_threads()} threads", sep=", ")


if __name__ == "__main__":
    main()
