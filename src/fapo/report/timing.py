"""Time of a training step, split into rollouts, scores and update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from fapo.report.run_labels import group_runs
from fapo.training.run_reader import Run


@dataclass(frozen=True)
class TimeSplit:
    """Seconds of a training step, as means over steps and runs."""

    label: str
    """Label of the runs."""
    rollout: float
    """Seconds to generate the rollouts."""
    score: float
    """Seconds to check answers and ask the judge."""
    update: float
    """Seconds of everything else: log-probabilities, gradients, optimizer."""

    @property
    def total(self) -> float:
        """Seconds of the whole step."""
        return self.rollout + self.score + self.update


def time_splits(runs: Sequence[Run]) -> list[TimeSplit]:
    """Return one record for each label with runs that recorded their times."""
    found = []
    for label, group in group_runs(runs).items():
        series = [[run.series(f"time/{part}", "train") for run in group] for part in ("rollout", "score", "update")]
        values = [[value for one in part for value in one.values] for part in series]
        if all(values):
            found.append(TimeSplit(label, *map(fmean, values)))
    return found
