"""Show what other kinds of reward would have done with the rollouts of a finished run of the miniature.

python -m experiments.advantages_of_kinds RUN_FOLDER [RUN_FOLDER ...]

The rollouts, their groups and their verdicts are those of the run; only the advantages are computed again, once for
each kind. So all kinds see the same rollouts, and the differences have no noise of training. After the first steps a
policy that another kind trains would write other rollouts, so this is no comparison of results.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from fapo.config.schema import DecoupledReward, FapoReward, FilterReward, OutcomeReward, PolicyReward
from fapo.data.jsonl import read_jsonl
from fapo.rewards.advantages import flawed_fraction, mean_advantage_by_class
from fapo.rewards.scorer import PolicyScorer, batch_advantages
from fapo.training.datasets import TRAIN
from fapo.types import Problem, Rollout, ScoredRollout, Verdict, rollout_class

KINDS: dict[str, PolicyReward] = {
    "outcome": OutcomeReward(),
    "fapo": FapoReward(),
    "fapo, lambda = 2": FapoReward(penalty=2),
    "decoupled, w = 1": DecoupledReward(),
    "filter, keeps 4": FilterReward(keep=4),
}
"""Name -> reward."""


@dataclass(frozen=True)
class Advantages:
    """Advantages of one kind on the rollouts of some steps."""

    by_truth: Mapping[str, float]
    """Mean advantage by true class: fully_correct, flawed, wrong."""
    used: float
    """Rate of rollouts with an advantage other than 0."""
    flawed_fraction: float
    """Fraction of the positive advantage that flawed rollouts get."""


def rescored(rows: Sequence[Mapping[str, Any]], reward: PolicyReward) -> list[ScoredRollout]:
    """Return rows of rollouts.jsonl with the reward of another kind."""
    scorer, out = PolicyScorer(reward, None), []
    for row in rows:
        rollout, judged = Rollout(Problem(row["problem_id"], "", ""), ""), row["status"] != "skipped"
        verdict = Verdict(row["status"], row["flawed"], row["error_step"]) if judged else None
        out.append(ScoredRollout(rollout, row["correct"], verdict, scorer.reward(rollout, row["correct"], verdict)))
    return out


def advantages_of(rows: Sequence[Mapping[str, Any]], reward: PolicyReward) -> Advantages:
    """Return the advantages of a kind.

    Args:
        rows: Training rows of rollouts.jsonl, of any steps, of one run.
        reward: Reward of the kind.
    """
    found = batch_advantages(rescored(rows, reward), [(row["step"], row["problem_id"]) for row in rows], reward)
    classes = [rollout_class(row["correct"], row["truth"]["error_step"] is not None) for row in rows]
    used = float(np.mean(np.abs(found) > 1e-9))
    return Advantages(mean_advantage_by_class(found, classes), used, flawed_fraction(found, classes))


def by_steps(rows: Iterable[Mapping[str, Any]], size: int) -> dict[str, list[Mapping[str, Any]]]:
    """Return the training rows by ranges of `size` steps, such as "1-10"."""
    out: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["split"] == TRAIN:
            first = (row["step"] - 1) // size * size + 1
            out.setdefault(f"{first}-{first + size - 1}", []).append(row)
    return out


def named_runs(study: str, description: str | None) -> list[dict[str, list[Mapping[str, Any]]]]:
    """Return the training rows, by ranges of steps, of each run that the command line names.

    Args:
        study: Name of the module in `experiments`.
        description: Text of its help.
    """
    parser = argparse.ArgumentParser(prog=f"python -m experiments.{study}", description=description)
    parser.add_argument("folders", nargs="+", type=Path, help="run folders of policies")
    parser.add_argument("--steps", type=int, default=10, help="number of steps in a row of the table")
    given = parser.parse_args()
    return [by_steps(read_jsonl(folder / "rollouts.jsonl"), given.steps) for folder in given.folders]


def main() -> None:
    """Print the table: a cell has one number for each run."""
    runs = named_runs("advantages_of_kinds", __doc__)
    columns = (
        "steps",
        "kind",
        "fully correct",
        "flawed",
        "wrong",
        "rollouts with an advantage",
        "of the positive, flawed",
    )
    table = Table(*columns, box=box.MARKDOWN)
    for steps in runs[0]:
        for name, reward in KINDS.items():
            found = [advantages_of(run[steps], reward) for run in runs if steps in run]
            cells = [
                ", ".join(f"{one.by_truth[key]:+.2f}" for one in found) for key in ("fully_correct", "flawed", "wrong")
            ]
            rates = ([one.used for one in found], [one.flawed_fraction for one in found])
            table.add_row(steps, name, *cells, *(", ".join(f"{100 * value:.0f} %" for value in part) for part in rates))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
