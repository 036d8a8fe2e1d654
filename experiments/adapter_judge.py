"""Let a policy judge itself: policy and judge are one set of weights and adapters (judge.kind = "adapter").

python -m experiments.adapter_judge [--output runs/adapter_judge] [--seeds 0 1 2] [--arms base policy own] [--steps 40]

The start is the one of `experiments.cotraining`, a small model that solves and judges. In all arms the policy is an
adapter on it, trained with FAPO on the same problems. The arms differ in `judge.model`:

    base     no adapter: the weights of the start, which training leaves as they are
    policy   the policy itself, with the adapter that it has at each step
    own      an adapter of its own, trained with Step-RL on the shipped labels before the first step

Runs that are complete are not repeated. The oracle evaluates; it judges in no arm.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from experiments.blind_judge import mean
from experiments.cotraining import (
    COMPARED,
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
from fapo.judge.quality import PRF

ARMS = ("base", "policy", "own")
"""Arms, in the order in which they are trained."""
SIZES = Sizes(rounds=1, steps=40, judge_steps=15)
"""Sizes of the study: one round, and as many labels as a judge of `experiments.cotraining` has in all."""
WINDOW = 10
"""Number of steps in one measurement of the judge."""
LORA = ("model.lora.rank=16", "model.lora.alpha=32")
"""Settings of all adapters."""
LEARNING_RATE = 2e-3
"""Learning rate of all adapters, by short runs. It is ten times that of the configs, which train all weights."""


@dataclass(frozen=True)
class Measured(End):
    """Measurements of one arm after the last step. Rates are in [0, 1]."""

    judge_j: float
    """Youden's J of the judge before the first step, on labelled solutions of the shipped base policy."""
    policy_j: float
    """Youden's J of the trained policy on them, asked as a judge."""
    seconds: float
    """Processor time of the training, with that of the judge's adapter, in seconds."""


COLUMNS = COMPARED | {
    "judge before, J on critic-test": "judge_j",
    "policy as a judge, J on critic-test": "policy_j",
    "processor s": "seconds",
}
"""Column -> field of Measured."""


def windows(run: Path, steps: int) -> dict[str, PRF]:
    """Return how good the judge of a run was, by the oracle, on the correct rollouts of each WINDOW steps.

    Args:
        run: Run folder.
        steps: Number of steps of the run.

    Returns:
        Range of steps, such as "1-10" -> rates. A rollout without a verdict counts as an error of the judge.
    """
    rows, found = correct_rollouts(run), {}
    for before in range(0, steps, WINDOW):
        last = min(before + WINDOW, steps)
        found[f"{before + 1}-{last}"] = rollout_quality([row for row in rows if before < row["step"] <= last])
    return found


def measure(output: Path, name: str, seed: int, sizes: Sizes, learning_rate: float) -> Measured:
    """Train one arm, unless it is complete, and measure it.

    Args:
        output: Folder of the study, with the start in `start`.
        name: Name of the arm.
        seed: Seed of the runs. It decides the order of the problems, so that arms are paired.
        sizes: Sizes of the study.
        learning_rate: Learning rate of all adapters.
    """
    start, folder = output / "start", output / f"{name}-{seed}"
    record = folder / "measured.jsonl"
    if not record.exists():
        lora = (*LORA, f"optim.learning_rate={learning_rate}")
        judge, more, known = name, 0.0, start
        if name == "own":
            run, more = train_judge(folder, "judge", start, 100 * seed, sizes, *lora, "model.lora.save=adapter")
            known = run / "model"
            judge = str(known)
        own = ("judge.kind=adapter", f"validation.save_every={WINDOW}")
        run, seconds = train_policy(folder, "run", start, judge, 100 * seed + 1, sizes, *lora, *own)
        *_, last = windows(run, sizes.steps).values()
        found = Measured(
            **asdict(tested(run / "model", last.youden_j, sizes.tested)),
            judge_j=known_quality(known, sizes.judged).youden_j,
            policy_j=known_quality(run / "model", sizes.judged).youden_j,
            seconds=seconds + more,
        )
        write_jsonl(record, [asdict(found)])
    (row,) = read_jsonl(record)
    return Measured(**row)


def print_windows(console: Console, runs: Mapping[str, list[Path]], steps: int) -> None:
    """Print how good the judges were in the course of the training.

    Args:
        console: Where to print.
        runs: Run folders of each arm.
        steps: Number of steps of a run.
    """
    shown = ("recall", "false positive rate", "without verdict", "J on rollouts")
    table = Table("arm", "steps", *shown, box=box.MARKDOWN)
    for name, folders in runs.items():
        found = [windows(run, steps) for run in folders]
        for window in found[0]:
            rates = [of_run[window] for of_run in found]
            rows = [(r.recall, r.recall - r.youden_j, r.invalid_rate, r.youden_j) for r in rates]
            table.add_row(name, window, *map(mean, zip(*rows, strict=True)))
    console.print(table)


def main() -> None:
    """Train, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/adapter_judge"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of the runs (default 0 1 2)")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="arms (default all)")
    parser.add_argument("--steps", type=int, default=SIZES.steps, help=f"steps of a policy (default {SIZES.steps})")
    parser.add_argument("--learning-rate", type=float, default=LEARNING_RATE, help=f"default {LEARNING_RATE}")
    given = parser.parse_args()
    output, sizes = given.output.resolve(), replace(SIZES, steps=given.steps)
    output.mkdir(parents=True, exist_ok=True)
    make_start(output / "start", sizes.imitation)
    ends: dict[str, dict[int, Measured]] = {name: {} for name in given.arms}
    for seed in given.seeds:
        for name in given.arms:
            ends[name][seed] = measure(output, name, seed, sizes, given.learning_rate)
    console = Console(width=400)
    runs = {name: [output / f"{name}-{seed}" / "run" for seed in given.seeds] for name in given.arms}
    print_windows(console, runs, sizes.steps)
    print_ends(console, ends, COLUMNS, "base")


if __name__ == "__main__":
    main()
