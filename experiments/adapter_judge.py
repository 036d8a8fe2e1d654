"""Let a policy judge itself: policy and judge are one set of weights and adapters (judge.kind = "adapter").

python -m experiments.adapter_judge [--output runs/adapter_judge] [--seeds 0 1 2] [--arms base policy own]

The start is the one of `experiments.cotraining`, a small model that solves and judges. In all arms the policy is an
adapter on it, trained with FAPO for 40 steps on the same problems. The arms differ in `judge.model`:

    base     no adapter: the weights of the start, which training leaves as they are
    policy   the policy itself, with the adapter that it has at each step
    own      an adapter of its own, trained with Step-RL on the shipped labels before the first step

Runs that are complete are not repeated. The oracle evaluates; it judges in no arm.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.cotraining import (
    End,
    Sizes,
    correct_rollouts,
    known_quality,
    make_start,
    print_ends,
    rollout_quality,
    tested,
    train_judge,
    train_policy,
)
from fapo.data.jsonl import read_jsonl, write_jsonl

ARMS = ("base", "policy", "own")
"""Arms, in the order in which they are trained."""
SIZES = Sizes(rounds=1, steps=40, judge_steps=15)
"""Sizes of the study: one round, and as many labels as a judge of `experiments.cotraining` has in all."""
WINDOW = 10
"""Number of steps at the start, and at the end, of the training; the judge is measured on their rollouts."""
LORA = ("model.lora.rank=16", "model.lora.alpha=32", "optim.learning_rate=2e-3")
"""Settings of all adapters, by short runs; the learning rate is ten times that of the configs for all weights."""


@dataclass(frozen=True)
class Measured(End):
    """Measurements of one arm, on the test sets and on the rollouts of the training. Rates are in [0, 1]."""

    recall: float
    """Rate of flagged rollouts among the flawed correct ones of the last steps."""
    false_positive_rate: float
    """Rate of flagged rollouts among the fully correct ones of the last steps."""
    without_verdict: float
    """Rate of correct rollouts of the last steps on which the judge wrote no readable verdict."""
    early_j: float
    """Youden's J of the judge on the correct rollouts of the first steps."""
    early_recall: float
    """Recall of the judge in the first steps."""
    early_false_positive_rate: float
    """False positive rate of the judge in the first steps."""
    judge_j: float
    """Youden's J of the judge before the first step, on labelled solutions of the shipped base policy."""
    policy_j: float
    """Youden's J of the trained policy on them, asked as a judge."""
    seconds: float
    """Processor time of the training, with that of the judge's adapter, in seconds."""


COLUMNS = {
    "accuracy": "accuracy",
    "right and fully correct": "reliable_accuracy",
    "accuracy, harder": "harder",
    "true FP ratio": "true_fp_ratio",
    "J, first steps": "early_j",
    "recall, first steps": "early_recall",
    "false positive rate, first steps": "early_false_positive_rate",
    "J, last steps": "youden_j",
    "recall, last steps": "recall",
    "false positive rate, last steps": "false_positive_rate",
    "without verdict, last steps": "without_verdict",
    "judge before, J on critic-test": "judge_j",
    "policy at the end, J on critic-test": "policy_j",
    "processor s": "seconds",
}
"""Column -> field of Measured."""


def measure(output: Path, name: str, seed: int, sizes: Sizes) -> Measured:
    """Train one arm, unless it is complete, and measure it.

    Args:
        output: Folder of the study, with the start in `start`.
        name: Name of the arm.
        seed: Seed of the runs. It decides the order of the problems, so that arms are paired.
        sizes: Sizes of the study.
    """
    start, folder = output / "start", output / f"{name}-{seed}"
    record = folder / "measured.jsonl"
    if not record.exists():
        judge, more, known = name, 0.0, start
        if name == "own":
            run, more = train_judge(folder, "judge", start, 100 * seed, sizes, *LORA, "model.lora.save=adapter")
            known = run / "model"
            judge = str(known)
        own = ("judge.kind=adapter", f"validation.save_every={WINDOW}")
        run, seconds = train_policy(folder, "run", start, judge, 100 * seed + 1, sizes, *LORA, *own)
        rows = correct_rollouts(run)
        early = rollout_quality(rows_of(rows, 1, WINDOW))
        late = rollout_quality(rows_of(rows, sizes.steps - WINDOW + 1, sizes.steps))
        found = Measured(
            **asdict(tested(run / "model", late.youden_j, sizes.tested)),
            recall=late.recall,
            false_positive_rate=late.fp / max(1, late.fp + late.tn),
            without_verdict=late.invalid_rate,
            early_j=early.youden_j,
            early_recall=early.recall,
            early_false_positive_rate=early.fp / max(1, early.fp + early.tn),
            judge_j=known_quality(known, sizes.judged).youden_j,
            policy_j=known_quality(run / "model", sizes.judged).youden_j,
            seconds=seconds + more,
        )
        write_jsonl(record, [asdict(found)])
    (row,) = read_jsonl(record)
    return Measured(**row)


def rows_of(rows: Sequence[dict[str, Any]], first: int, last: int) -> list[dict[str, Any]]:
    """Return the rollouts of the steps from `first` to `last`, both included."""
    return [row for row in rows if first <= row["step"] <= last]


def main() -> None:
    """Train, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/adapter_judge"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of the runs (default 0 1 2)")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="arms (default all)")
    given = parser.parse_args()
    output = given.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    make_start(output / "start", SIZES.imitation)
    ends: dict[str, dict[int, Measured]] = {name: {} for name in given.arms}
    for seed in given.seeds:
        for name in given.arms:
            ends[name][seed] = measure(output, name, seed, SIZES)
    print_ends(Console(width=400), ends, COLUMNS, "base")


if __name__ == "__main__":
    main()
