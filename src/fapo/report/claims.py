"""What the paper lets one expect of a study with several seeds, held against its runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from rich.console import Console
from rich.table import Table

from fapo.intervals import mean_interval
from fapo.report.summary import find_crossing
from fapo.run_reader import Run

LAST = 3
"""Validations whose mean is taken for the end of a run."""
Status = Literal["holds", "does not hold", "too noisy to say", "one seed: met", "one seed: not met"]


@dataclass(frozen=True)
class Claim:
    """One expectation and the numbers it rests on."""

    text: str
    """What is expected."""
    measured: str
    """What the margin is."""
    margins: tuple[float, ...]
    """One for each seed; positive where the expectation is met."""

    @property
    def status(self) -> Status:
        """holds: met for every seed, and 0 outside the mean's 95 % interval (Student's t); does not hold: the mirror.

        One seed says what it says of itself only, whatever the margin.
        """
        met = [margin > 0 for margin in self.margins]
        if len(met) == 1:
            return "one seed: met" if met[0] else "one seed: not met"
        low, high = mean_interval(self.margins)
        if all(met) and low > 0:
            return "holds"
        return "does not hold" if not any(met) and high < 0 else "too noisy to say"

    @property
    def spread(self) -> str:
        """Mean and standard deviation over the seeds."""
        deviation = f" ± {stdev(self.margins):.3f}" if len(self.margins) > 1 else ""
        return f"{fmean(self.margins):+.3f}{deviation}"


def check_claims(runs: Sequence[Run]) -> list[Claim]:
    """The expectations that these runs can answer, seed by seed; runs of one seed are compared with each other."""
    by_kind = {
        kind: {run.config.get("seed"): run for run in runs if run.kind == kind and run.penalty in (None, 1.0)}
        for kind in {r.kind for r in runs}
    }
    base, fapo = by_kind.get("outcome", {}), by_kind.get("fapo", {})
    step, outcome = by_kind.get("genrm_step", {}), by_kind.get("genrm_outcome", {})
    both = [(base[seed], fapo[seed]) for seed in base if seed in fapo]
    judges = [(step[seed], outcome[seed]) for seed in step if seed in outcome]
    fp, easy, hard = "validation/true_fp_ratio", "validation/accuracy", "harder/accuracy"
    found = [
        (
            "a. the baseline's true FP ratio stays at or above its start",
            "end - start",
            [_gain(b, fp) for b in base.values()],
        ),
        (
            "b. FAPO's true FP ratio ends at half of its start or less",
            "start / 2 - end",
            [_halved(f, fp) for f in fapo.values()],
        ),
        ("c. FAPO's accuracy is higher than the baseline's", "difference", [_gap(b, f, easy) for b, f in both]),
        ("c. ... and on harder problems too", "difference", [_gap(b, f, hard) for b, f in both]),
        ("c. ... where the difference is larger", "difference", [_more(b, f, easy, hard) for b, f in both]),
        (
            "d. FAPO's responses are at most 5 % longer than the baseline's",
            "margin in tokens",
            [_length(b, f) for b, f in both],
        ),
        ("e. Step-RL raises the GenRM's F1", "end - start", [_gain(s, "test/f1") for s in step.values()]),
        ("e. Step-RL beats outcome-only RL in F1", "difference", [_gap(o, s, "test/f1") for s, o in judges]),
        (
            "e. Step-RL beats outcome-only RL in location",
            "difference",
            [_gap(o, s, "test/location") for s, o in judges],
        ),
        (
            "f. flawed positives turn negative at rho = 1 (0.67 to 1.5), rho of the groups that have some",
            "1.5 - max(rho, 1/rho)" + _batch_rho(list(fapo.values())),
            [_shift(f) for f in fapo.values()],
        ),
    ]
    claims = [(text, what, tuple(m for m in margins if m is not None)) for text, what, margins in found]
    return [Claim(text, what, margins) for text, what, margins in claims if margins]


def print_claims(runs: Sequence[Run], console: Console) -> None:
    """The claims as a table."""
    table = Table(
        "expected", "measured", "mean ± sd", "each seed", "verdict", title="What was expected, and what came out"
    )
    for claim in check_claims(runs):
        seeds = " ".join(f"{margin:+.3f}" for margin in claim.margins)
        table.add_row(claim.text, claim.measured, claim.spread, seeds, claim.status)
    console.print(table)


def _end(run: Run, key: str) -> float | None:
    """Mean of a metric over the last validations."""
    values = run.series(key).values[1:][-LAST:]
    return fmean(values) if values else None


def _start(run: Run, key: str) -> float | None:
    """A metric at the first validation."""
    values = run.series(key).values
    return values[0] if values else None


def _gain(run: Run, key: str) -> float | None:
    first, last = _start(run, key), _end(run, key)
    return None if first is None or last is None else last - first


def _halved(run: Run, key: str) -> float | None:
    first, last = _start(run, key), _end(run, key)
    return None if first is None or last is None else first / 2 - last


def _gap(worse: Run, better: Run, key: str) -> float | None:
    low, high = _end(worse, key), _end(better, key)
    return None if low is None or high is None else high - low


def _more(base: Run, fapo: Run, easy: str, hard: str) -> float | None:
    small, large = _gap(base, fapo, easy), _gap(base, fapo, hard)
    return None if small is None or large is None else large - small


def _length(base: Run, fapo: Run) -> float | None:
    ours, theirs = _end(fapo, "validation/length"), _end(base, "validation/length")
    return None if ours is None or theirs is None else 1.05 * theirs - ours


def _shift(run: Run) -> float | None:
    crossing = find_crossing(run)
    ratio = crossing and crossing.own_rho
    return 1.5 - max(ratio, 1 / ratio) if ratio else None


def _batch_rho(runs: Sequence[Run]) -> str:
    """rho of the whole batch at the crossings, for comparison: solved groups without flawed positives raise it."""
    crossings = [crossing for run in runs if (crossing := find_crossing(run)) and crossing.own_rho]
    ratios = [c.true_rho if c.flawed_rho is None else c.rho for c in crossings]
    texts = [f"{ratio:.2f}" for ratio in ratios if ratio is not None]
    return f"; rho of the whole batch there: {', '.join(texts)}" if texts else ""
