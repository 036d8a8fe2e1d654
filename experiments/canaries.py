"""How soon canaries find out a judge that is sabotaged mid-run, how often they stop a run for nothing, at what cost.

python experiments/canaries.py [--runs 100] [--batch 100] [--min-f1 0.7]

The judge is simulated: it knows the labels of the miniature's critic data, flags a flawed solution with probability
--recall and a sound one with probability --alarms, names the right step, and from a batch drawn anew for each run on
does as the row says. Without sabotage a run has --honest batches. "Too soon" are the runs that were stopped before any
sabotage. Delays are in batches of --batch judged rollouts, with 95 % intervals of the median over runs.
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
    """By what a solution is known again."""
    return problem.text, *(step.strip() for step in steps)


KNOWN = labelled("miniature:critic-test")
LABELS = {key(s.problem, s.steps): s.error_step for s in KNOWN}


@dataclass
class Simulated:
    """A `Judge` with known errors, sabotaged from a batch on."""

    rng: random.Random
    recall: float
    alarms: float
    kind: str = ""
    """The sabotage; "": none."""
    since: int = 0
    """The first batch of the sabotage."""
    questions: list[int] = field(default_factory=list)
    """Of each batch."""

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Verdict]:
        self.questions.append(len(rollouts))
        sabotaged = bool(self.kind) and len(self.questions) > self.since
        return [Verdict.from_step(self.step(rollout, sabotaged)) for rollout in rollouts]

    def step(self, rollout: Rollout, sabotaged: bool) -> int | None:
        label = LABELS.get(key(rollout.problem, split_steps(rollout.response)))
        if sabotaged:
            return SABOTAGE[self.kind](self.rng, label)
        if label is None:
            return 0 if self.rng.random() < self.alarms else None
        return label if self.rng.random() < self.recall else None


async def stopped_after(judge: Simulated, canaries: Canaries, size: int, most: int) -> int | None:
    """The batch in which the run was stopped; None if it never was."""
    for number in range(1, most + 1):
        rollouts = [Rollout(Problem("p", "1+1", "2"), f"1+1=2 in {number}, {i}") for i in range(size)]
        try:
            await canaries(rollouts)
        except JudgeDownError:
            return number
    return None


def median_interval(values: Sequence[float], num: int = 2000) -> Interval:
    """Of the median, by drawing values with replacement."""
    rng = np.random.default_rng(0)
    return percentile_interval(np.median(rng.choice(np.array(values), (num, len(values))), axis=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100, help="of each row (default 100)")
    parser.add_argument("--batch", type=int, default=100, help="judged rollouts of a batch (default 100)")
    parser.add_argument("--honest", type=int, default=200, help="batches of a run without sabotage (default 200)")
    parser.add_argument("--min-f1", type=float, default=0.7, help="judge.canary_min_f1 (default 0.7)")
    parser.add_argument("--recall", type=float, default=0.9)
    parser.add_argument("--alarms", type=float, default=0.1)
    given = parser.parse_args()
    columns = ("share", "sabotage", "too soon", "found", "batches until then", "most", "questions / rollouts")
    table = Table(*columns, box=box.MARKDOWN)
    for share in (0.02, 0.05, 0.1):
        for kind in ("", *SABOTAGE):
            delays, num_early, asked = [], 0, []
            for run in range(given.runs):
                rng = random.Random(f"{share} {kind} {run}")
                since = rng.randrange(50, 100) if kind else given.honest
                judge = Simulated(rng, given.recall, given.alarms, kind, since)
                canaries = Canaries(judge, KNOWN, share, given.min_f1, seed=run)
                end = asyncio.run(stopped_after(judge, canaries, given.batch, since + 100 if kind else since))
                asked.append(statistics.mean(judge.questions) / given.batch)
                num_early += end is not None and end <= since
                if end is not None and end > since:
                    delays.append(end - since)
            found = ["", "", ""]
            if delays:
                low, high = median_interval(delays)
                found = [str(len(delays)), f"{statistics.median(delays):g} [{low:g}, {high:g}]", str(max(delays))]
            row = (f"{share:g}", kind or f"none, {given.honest} batches", f"{num_early} of {given.runs}", *found)
            table.add_row(*row, f"{statistics.mean(asked):.3f}")
    Console(width=120).print(table)
    print(f"recall {given.recall:g}, false alarms {given.alarms:g}, stopped below F1 {given.min_f1:g}")


if __name__ == "__main__":
    main()
