"""A judge with a blind spot that its audit replaces: does the run recover, and how often is the second judge asked?

python -m experiments.switched_judge [--output runs/blind_judge] [--seeds 3] [--steps 50]

The judges are those of `experiments.blind_judge`: the oracle of the miniature, blind to slips, and the exact oracle as
the second judge. Each seed trains three policies: with the blind judge alone; with the blind judge until an audit of
5 % of its verdicts replaces it (`judge.audit.on_low_j = "switch"`, `min_j = 0.5`); with the exact oracle from the
start. A run that stops instead of switching has the weights of the second run at its last step with the blind judge.

Runs that are complete are not repeated. With the same seeds the results are the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from experiments.blind_judge import MIN_J, mean, run, steps_of
from fapo.data.jsonl import read_jsonl

RATE = 0.05
"""Rate of the judged rollouts that the second judge reads."""
BLIND = ('judge.blind_to=["slip"]',)
SWITCH = (*BLIND, f"judge.audit.rate={RATE}", f"judge.audit.min_j={MIN_J}", "judge.audit.on_low_j=switch")
ARMS = {"blind": BLIND, "replaced": SWITCH, "gold": ()}
"""Name of the runs -> changed settings."""
MEASURED = {
    "accuracy": "validation/accuracy",
    "right and fully correct": "validation/reliable_accuracy",
    "true FP ratio": "validation/true_fp_ratio",
    "accuracy, harder": "harder/accuracy",
    "right and fully correct, harder": "harder/reliable_accuracy",
}
"""Column -> metric of the last validation."""
STOPPED = ("last step of the blind judge", "accuracy then", "right and fully correct then", "true FP ratio then")
"""Columns of the second table about the step after which a run that does not switch stops."""
VERDICTS = ("verdicts of the second judge", "of these audits", "with the exact judge from the start")
"""Columns about the number of verdicts on rollouts of the training."""


@dataclass(frozen=True)
class Switch:
    """When the second judge took over, and how many verdicts it gave."""

    step: int
    """Last step with the first judge."""
    num_before: int
    """Number of verdicts of the second judge until then, all of the audit."""
    num_after: int
    """Number of its verdicts on the training rollouts of the steps after it."""


def switch_of(
    steps: Sequence[Mapping[str, Any]], audits: Sequence[Any], rollouts: Sequence[Mapping[str, Any]]
) -> Switch:
    """Return when a run has switched.

    Args:
        steps: Metrics of its training steps.
        audits: Rows of audit.jsonl.
        rollouts: Rows of rollouts.jsonl.

    Returns:
        The last step with the first judge, and the numbers of verdicts.

    Raises:
        ValueError: If the run has not switched.
    """
    first = next((row["step"] for row in steps if row["audit/switched"]), None)
    if first is None:
        raise ValueError("the audit has not replaced the judge")
    judged = (row for row in rollouts if row["split"] == "train" and row["step"] >= first)
    return Switch(first - 1, len(audits), sum(row["flawed"] is not None for row in judged))


def last_validation(folder: Path) -> dict[str, Any]:
    """Return the metrics of the last validation of a run."""
    return [row for row in read_jsonl(folder / "metrics.jsonl") if row["kind"] == "validation"][-1]


def main() -> None:
    """Train, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/blind_judge"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=3, help="number of runs of each kind (default 3)")
    parser.add_argument("--steps", type=int, default=50, help="steps of a run (default 50)")
    given = parser.parse_args()
    output = given.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    folders: dict[str, list[Path]] = {name: [] for name in ARMS}
    for seed in range(given.seeds):
        for name, changed in ARMS.items():
            folders[name].append(run(output, name, seed, given.steps, *changed))
    console = Console(width=200)
    table = Table("judge", *MEASURED, box=box.MARKDOWN)
    for name, runs in folders.items():
        found = [last_validation(folder) for folder in runs]
        table.add_row(name, *(mean([row.get(key) for row in found]) for key in MEASURED.values()))
    console.print(table)
    second = Table("seed", *STOPPED, *VERDICTS, box=box.MARKDOWN)
    for seed, folder in enumerate(folders["replaced"]):
        steps = steps_of(folder)
        found = switch_of(steps, list(read_jsonl(folder / "audit.jsonl")), list(read_jsonl(folder / "rollouts.jsonl")))
        accuracy, ratio = (steps[found.step - 1][f"rollout/{name}"] for name in ("accuracy", "true_fp_ratio"))
        all_judged = read_jsonl(folders["gold"][seed] / "rollouts.jsonl")
        num_gold = sum(row["split"] == "train" and row["flawed"] is not None for row in all_judged)
        counts = (found.num_before + found.num_after, found.num_before, num_gold)
        then = (f"{value:.2f}" for value in (accuracy, accuracy * (1 - ratio), ratio))
        second.add_row(str(seed), str(found.step), *then, *(f"{n:,}" for n in counts))
    console.print(second)


if __name__ == "__main__":
    main()
