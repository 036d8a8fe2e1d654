"""Measure how soon canaries detect a sabotaged judge, how often they stop an honest run, and what they cost.

python -m experiments.canaries [--runs 100] [--batch 100] [--min-f1 0.7]

The judge is simulated. It knows the labels of the miniature's critic data, flags a flawed solution with probability
--recall and a correct one with probability --false-positive-rate, and names the right step. From a random batch of
each run, it behaves as the row says. A run without sabotage has --honest batches. The column "too soon" counts runs
that were stopped before any sabotage. Delays are in batches of --batch judged rollouts, with 95 % intervals of the
median.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from fapo.data.miniature.sets import labelled
from fapo.data.steps import split_steps
from fapo.errors import JudgeDownError
from fapo.evaluation.intervals import Interval, percentile_interval
from fapo.judge.canaries import Canaries
from fapo.types import Problem, Rollout, Verdict

SABOTAGE: dict[str, Callable[[random.Random, int | None], int | None]] = {
    "finds no fault": lambda rng, label: None,
    "flags everything": lambda rng, label: 0,
    "tosses a coin": lambda rng, label: rng.choice([None, 0]),
    "misses half": lambda rng, label: label if rng.random() < 0.5 else None,
}


def key(problem: Problem, steps: Sequence[str]) -> tuple[str, ...]:
    """Return the key under which the label of a solution is stored."""
    return problem.text, *(step.strip() for step in steps)


KNOWN = labelled("miniature:critic-test")
LABELS = {key(s.problem, s.steps): s.error_step for s in KNOWN}


@dataclass
class Simulated:
    """A `Judge` with known error rates that is sabotaged after a number of batches."""

    rng: random.Random
    recall: float
    false_positive_rate: float
    kind: str = ""
    """Name of the sabotage; "" is none."""
    since: int = 0
    """Number of batches before the sabotage."""
    questions: list[int] = field(default_factory=list)
    """Number of solutions in each batch, with its canaries."""

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Verdict]:
        self.questions.append(len(rollouts))
        return self.verdicts(rollouts)

    async def on_canaries(self, rollouts: Sequence[Rollout]) -> list[Verdict]:
        """Return the verdicts on the canaries of the latest batch, which are asked about separately."""
        self.questions[-1] += len(rollouts)
        return self.verdicts(rollouts)

    def verdicts(self, rollouts: Sequence[Rollout]) -> list[Verdict]:
        sabotaged = bool(self.kind) and len(self.questions) > self.since
        return [Verdict.from_step(self.step(rollout, sabotaged)) for rollout in rollouts]

    def step(self, rollout: Rollout, sabotaged: bool) -> int | None:
        """Return the error step that the judge names; None finds no flaw."""
        label = LABELS.get(key(rollout.problem, split_steps(rollout.response, "lines")))
        if sabotaged:
            return SABOTAGE[self.kind](self.rng, label)
        if label is None:
            return 0 if self.rng.random() < self.false_positive_rate else None
        return label if self.rng.random() < self.recall else None


async def stopped_after(judge: Simulated, canaries: Canaries, size: int, most: int) -> int | None:
    """Return the number of the batch that stopped the run, counted from 1, or None if none did."""
    for number in range(1, most + 1):
        rollouts = [Rollout(Problem("p", "1+1", "2"), f"1+1=2 in {number}, {i}") for i in range(size)]
        try:
            await canaries(rollouts)
        except JudgeDownError:
            return number
    return None


def median_interval(values: Sequence[float], num: int = 2000) -> Interval:
    """Return the bootstrap interval of the median."""
    rng = np.random.default_rng(0)
    return percentile_interval(np.median(rng.choice(np.array(values), (num, len(values))), axis=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100, help="runs of each row (default 100)")
    parser.add_argument("--batch", type=int, default=100, help="judged rollouts of a batch (default 100)")
    parser.add_argument("--honest", type=int, default=200, help="batches of a run without sabotage (default 200)")
    parser.add_argument("--min-f1", type=float, default=0.7, help="judge.canary_min_f1 (default 0.7)")
    parser.add_argument("--recall", type=float, default=0.9)
    parser.add_argument("--false-positive-rate", type=float, default=0.1)
    given = parser.parse_args()
    columns = ("rate", "sabotage", "too soon", "found", "batches until then", "most", "questions / rollouts")
    table = Table(*columns, box=box.MARKDOWN)
    for rate in (0.02, 0.05, 0.1):
        for kind in ("", *SABOTAGE):
            delays, num_early, asked = [], 0, []
            for run in range(given.runs):
                rng = random.Random(f"{rate} {kind} {run}")
                since = rng.randrange(50, 100) if kind else given.honest
                judge = Simulated(rng, given.recall, given.false_positive_rate, kind, since)
                canaries = Canaries(judge, KNOWN, rate, given.min_f1, run, judge.on_canaries)
                end = asyncio.run(stopped_after(judge, canaries, given.batch, since + 100 if kind else since))
                asked.append(statistics.mean(judge.questions) / given.batch)
                num_early += end is not None and end <= since
                if end is not None and end > since:
                    delays.append(end - since)
            found = ["", "", ""]
            if delays:
                low, high = median_interval(delays)
                found = [str(len(delays)), f"{statistics.median(delays):g} [{low:g}, {high:g}]", str(max(delays))]
            row = (f"{rate:g}", kind or f"none, {given.honest} batches", f"{num_early} of {given.runs}", *found)
            table.add_row(*row, f"{statistics.mean(asked):.3f}")
    Console(width=120).print(table)
    print(
        f"recall {given.recall:g}, false positive rate {given.false_positive_rate:g}, stopped below F1 {given.min_f1:g}"
    )


if __name__ == "__main__":
    main()
