"""Claims of the paper, compared with the runs of a study with several seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from experiments.paper.changes import NotMeasuredError, end, gain, gap, start
from experiments.paper.power import MAX_SEEDS, seeds_needed
from fapo.evaluation.intervals import mean_interval
from fapo.report.summary import find_crossing
from fapo.training.run_reader import Run

Status = Literal["holds", "does not hold", "too noisy to say", "one seed: met", "one seed: not met"]


@dataclass(frozen=True)
class Claim:
    """A claim and its measurements."""

    text: str
    """The claim, as text."""
    measured: str
    """Definition of the margin, as text."""
    margins: tuple[float, ...]
    """Margin of each seed; a positive one means that the claim is met."""

    @property
    def status(self) -> Status:
        """Result of the comparison.

        "holds" means that every seed meets the claim and that the 95 % interval of the mean margin (Student's t) lies
        above 0. "does not hold" means that no seed meets it and that the interval lies below 0. One seed has no
        interval, so its result counts for itself only.
        """
        met = [margin > 0 for margin in self.margins]
        if len(met) == 1:
            return "one seed: met" if met[0] else "one seed: not met"
        low, high = mean_interval(self.margins)
        if all(met) and low > 0:
            return "holds"
        return "does not hold" if not any(met) and high < 0 else "too noisy to say"

    @property
    def result(self) -> str:
        """The status; if it is too noisy to say, with the number of seeds that a test of this mean needs."""
        if self.status != "too noisy to say":
            return self.status
        needed = seeds_needed(self.margins)
        return f"{self.status} (needs {needed or f'more than {MAX_SEEDS}'} seeds)"

    @property
    def spread(self) -> str:
        """Mean and standard deviation of the margins, as text."""
        deviation = f" ± {stdev(self.margins):.3f}" if len(self.margins) > 1 else ""
        return f"{fmean(self.margins):+.3f}{deviation}"


def check_claims(runs: Sequence[Run]) -> list[Claim]:
    """Return the claims that these runs can answer; runs of the same seed are compared with each other."""
    by_kind: dict[str, dict[Any, Run]] = defaultdict(dict)
    for run in runs:
        if run.penalty in (None, 1.0):
            by_kind[run.kind][run.config.get("seed")] = run
    base, fapo = [(run,) for run in by_kind["outcome"].values()], [(run,) for run in by_kind["fapo"].values()]
    step = [(run,) for run in by_kind["genrm_step"].values()]
    both, judges = (
        [(by_kind[low][seed], run) for seed, run in by_kind[high].items() if seed in by_kind[low]]
        for low, high in (("outcome", "fapo"), ("genrm_outcome", "genrm_step"))
    )
    fp, easy, hard, length = "validation/true_fp_ratio", "validation/accuracy", "harder/accuracy", "validation/length"
    found = [
        _claim(
            "a. the baseline's true FP ratio stays at or above its start", "end - start", base, lambda b: gain(b, fp)
        ),
        _claim(
            "b. FAPO's true FP ratio ends at half of its start or less",
            "start / 2 - end",
            fapo,
            lambda f: start(f, fp) / 2 - end(f, fp),
        ),
        _claim("c. FAPO's accuracy is higher than the baseline's", "difference", both, lambda b, f: gap(b, f, easy)),
        _claim("c. ... and on harder problems too", "difference", both, lambda b, f: gap(b, f, hard)),
        _claim(
            "c. ... where the difference is larger",
            "difference",
            both,
            lambda b, f: gap(b, f, hard) - gap(b, f, easy),
        ),
        _claim(
            "d. FAPO's responses are at most 5 % longer than the baseline's",
            "margin in tokens",
            both,
            lambda b, f: 1.05 * end(b, length) - end(f, length),
        ),
        _claim("e. Step-RL raises the GenRM's F1", "end - start", step, lambda s: gain(s, "test/f1")),
        _claim("e. Step-RL beats outcome-only RL in F1", "difference", judges, lambda o, s: gap(o, s, "test/f1")),
        _claim(
            "e. Step-RL beats outcome-only RL in location",
            "difference",
            judges,
            lambda o, s: gap(o, s, "test/location"),
        ),
        _claim(
            "f. flawed positives turn negative at rho = 1 (0.67 to 1.5), rho of the groups that have some",
            "1.5 - max(rho, 1/rho)" + _batch_rho([run for (run,) in fapo]),
            fapo,
            _shift,
        ),
    ]
    return [claim for claim in found if claim.margins]


def _claim(text: str, measured: str, runs: Sequence[tuple[Run, ...]], margin: Callable[..., float]) -> Claim:
    """Return the claim with one margin for each seed, without seeds that lack a measurement."""
    margins = []
    for of_seed in runs:
        with suppress(NotMeasuredError):
            margins.append(margin(*of_seed))
    return Claim(text, measured, tuple(margins))


def print_claims(runs: Sequence[Run], console: Console) -> None:
    """Print the claims that the runs can answer as a table.

    Args:
        runs: Runs of one study.
        console: Console to print on.
    """
    table = Table(
        "claim", "margin", "mean ± sd", "each seed", "result", title="Claims of the paper and results of these runs"
    )
    for claim in check_claims(runs):
        seeds = " ".join(f"{margin:+.3f}" for margin in claim.margins)
        table.add_row(claim.text, claim.measured, claim.spread, seeds, claim.result)
    console.print(table)


def _shift(run: Run) -> float:
    """Return 1.5 minus rho at the crossing, or minus its inverse if that is larger."""
    crossing = find_crossing(run)
    if not crossing or not crossing.own_rho:
        raise NotMeasuredError(f"{run.path}: the flawed advantage does not turn negative")
    return 1.5 - max(crossing.own_rho, 1 / crossing.own_rho)


def _batch_rho(runs: Sequence[Run]) -> str:
    """Return rho of the whole batch at the crossings as text; solved groups without flawed positives raise it."""
    crossings = [crossing for run in runs if (crossing := find_crossing(run)) and crossing.own_rho]
    ratios = [c.true_rho if c.flawed_rho is None else c.rho for c in crossings]
    texts = [f"{ratio:.2f}" for ratio in ratios if ratio is not None]
    return f"; rho of the whole batch there: {', '.join(texts)}" if texts else ""
