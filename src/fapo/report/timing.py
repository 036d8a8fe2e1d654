"""Where the time of training goes: rollouts, scores (answers checked, judge asked), update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from fapo.report.labels import grouped
from fapo.training.run_reader import Run


@dataclass(frozen=True)
class TimeSplit:
    """Seconds of a training step, mean over steps and runs."""

    label: str
    """Which runs."""
    rollout: float
    """Writing the rollouts."""
    score: float
    """Checking answers and asking the judge."""
    update: float
    """Everything else: log-probabilities, gradients, optimizer."""

    @property
    def total(self) -> float:
        """The whole step."""
        return self.rollout + self.score + self.update


def time_splits(runs: Sequence[Run]) -> list[TimeSplit]:
    """One for each label whose runs took the time."""
    found = []
    for label, group in grouped(runs).items():
        series = [[run.series(f"time/{part}", "train") for run in group] for part in ("rollout", "score", "update")]
        values = [[value for one in part for value in one.values] for part in series]
        if all(values):
            found.append(TimeSplit(label, *map(fmean, values)))
    return found
