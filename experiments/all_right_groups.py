"""Train with decoupled advantages that weigh the groups with right answers alone differently from the others.

python -m experiments.all_right_groups [--output runs/all_right_groups] [--seeds 0 1 2] [--weights 0 3]

A group with right answers alone teaches plain GRPO nothing, and decoupled advantages by the verdicts alone. Here its
advantages are multiplied by a weight: with 0 it teaches nothing, with 3 it counts three times. The runs have w = 1, the
shipped start and the judge of their seed, as those of the arm "decoupled" of `experiments.miniature comparison` in the
world "today". These are the runs of weight 1, taken from docs/results/comparison/results.json. Runs that are complete
are not repeated.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from unittest.mock import patch

import numpy as np
import numpy.typing as npt
from rich import box
from rich.console import Console
from rich.table import Table

from experiments.cotraining import trained
from experiments.paper.comparison import TESTED, Result, measure, stored_results
from fapo.config.reader import load
from fapo.data.columns import Row
from fapo.data.jsonl import read_jsonl
from fapo.data.miniature.sets import CONFIG_FOLDER
from fapo.evaluation.intervals import mean_interval, percent, signed_points
from fapo.rewards import decoupled
from fapo.training.run_reader import read_run

WORLD, ARM = "today", "decoupled"
"""World and arm of the comparison with weight 1."""
STORED = Path("docs/results/comparison/results.json")
"""File with the runs of the comparison."""


def weighted_advantages(
    outcome: decoupled.Table, process: decoupled.Table, weight: float, all_right: float
) -> npt.NDArray[np.float64]:
    """Return decoupled advantages, multiplied by a weight in the groups with right answers alone.

    Args:
        outcome: Rewards of the answers, [num_prompts, group_size]; NaN or None for an unscored rollout.
        process: Process scores, [num_prompts, group_size], as in `decoupled_advantages`.
        weight: w, the weight of the process part in all groups.
        all_right: Weight of the groups without a wrong answer.

    Returns:
        Advantages, [num_prompts, group_size].
    """
    advantages = decoupled.decoupled_advantages(outcome, process, weight)
    wrong = np.asarray(outcome, dtype=np.float64) < 0
    return np.where(wrong.any(axis=1, keepdims=True), 1.0, all_right) * advantages


def train_with(output: Path, all_right: float, seed: int) -> Result:
    """Train one policy, and the judge of its seed, unless they are complete; return the policy's measurements.

    Args:
        output: Folder of the study.
        all_right: Weight of the groups with right answers alone.
        seed: Seed of both runs.
    """
    common = f"output={output}", f"seed={seed}"
    judge, _ = trained(load(CONFIG_FOLDER / "genrm.toml", (f"name=genrm-{seed}", *common)))
    settings = (f"name={all_right:g}-{seed}", *common, "reward.kind=decoupled", f"judge.model={judge / 'model'}")

    with patch("fapo.rewards.scorer.decoupled_advantages", partial(weighted_advantages, all_right=all_right)):
        run, _ = trained(load(CONFIG_FOLDER / "policy.toml", settings))
    return measure(read_run(run), WORLD, ARM, seed)


def group_rates(run: Path, width: int = 10) -> dict[str, tuple[float, float]]:
    """Return how many groups of a run are all right.

    Args:
        run: Run folder.
        width: Number of steps of a range.

    Returns:
        Range of steps, such as "1-10" -> the rate of groups with right answers alone, and the rate of groups that also
        have flawed and fully correct rollouts, by the verdicts. These teach.
    """
    groups: dict[int, dict[tuple[int, str], list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in read_jsonl(run / "rollouts.jsonl"):
        if row["split"] == "train":
            groups[(row["step"] - 1) // width][row["step"], row["problem_id"]].append(row)
    found = {}
    for number, by_group in sorted(groups.items()):
        right = [group for group in by_group.values() if all(row["correct"] for row in group)]
        teaching = [group for group in right if {True, False} <= {row["flawed"] for row in group}]
        steps = f"{number * width + 1}-{(number + 1) * width}"
        found[steps] = len(right) / len(by_group), len(teaching) / len(by_group)
    return found


def print_group_rates(console: Console, runs: Sequence[Path]) -> None:
    """Print the means of `group_rates` over runs."""
    table = Table("steps", "all right", "all right, with both verdicts", box=box.MARKDOWN)
    rates = [group_rates(run) for run in runs]
    for steps in rates[0]:
        table.add_row(steps, *(percent(fmean(of_run[steps][i] for of_run in rates)) for i in (0, 1)))
    console.print(table)


def print_differences(console: Console, found: dict[float, list[Result]], equal: dict[int, Result]) -> None:
    """Print the ends of all weights, and their paired differences to weight 1, in percent and points.

    Args:
        console: Where to print.
        found: Measurements by weight.
        equal: Measurements with weight 1 by seed.
    """
    table = Table("groups that are all right", "seeds", *TESTED, box=box.MARKDOWN)
    trained_seeds = {result.seed for results in found.values() for result in results}
    once = [result for seed, result in equal.items() if seed in trained_seeds]
    table.add_row("1", str(len(once)), *(percent(fmean(r.end[title] for r in once)) for title in TESTED))
    for weight, results in found.items():
        cells = [percent(fmean(r.end[title] for r in results)) for title in TESTED]
        table.add_row(f"{weight:g}", str(len(results)), *cells)
        pairs = [(r, equal[r.seed]) for r in results if r.seed in equal]
        changes = [[r.end[title] - other.end[title] for r, other in pairs] for title in TESTED]
        if len(pairs) > 1:
            shown = [signed_points(fmean(values), mean_interval(values)) for values in changes]
            table.add_row(f"{weight:g} - 1", str(len(pairs)), *shown)
    console.print(table)


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/all_right_groups"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--weights", type=float, nargs="+", default=[0.0, 3.0])
    args = parser.parse_args()
    found = {weight: [train_with(args.output, weight, seed) for seed in args.seeds] for weight in args.weights}
    stored = stored_results(STORED)
    equal = {seed: result for (world, arm, seed), result in stored.items() if (world, arm) == (WORLD, ARM)}
    console = Console(width=160)
    print_differences(console, found, equal)
    for weight in args.weights:
        console.print(f"\nGroups of the runs with weight {weight:g}:")
        print_group_rates(console, [args.output / f"{weight:g}-{seed}" for seed in args.seeds])


if __name__ == "__main__":
    main()
