"""Write the page of `python -m experiments.miniature comparison`: ways to use a verdict, with paired differences."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev

import numpy as np

from experiments.paper.changes import end, measured_series, start
from experiments.paper.findings import LOOKS
from experiments.paper.power import POWER, detectable_effect
from experiments.paper.runs import COMPARED, WORLDS
from fapo.errors import DataError
from fapo.evaluation.intervals import NUM_RESAMPLES, SEED, Interval, mean_interval, percentile_interval
from fapo.training.run_reader import Run, is_finished, read_run

REFERENCE = "fapo"
"""Arm that the others are compared with."""
SHOWN = {
    "accuracy": "validation/accuracy",
    "right for the right reason": "validation/reliable_accuracy",
    "flawed, of the correct": "validation/true_fp_ratio",
    "accuracy, harder": "harder/accuracy",
    "right for the right reason, harder": "harder/reliable_accuracy",
    "length": "validation/length",
}
"""Metric at the end of a run by its title."""
TESTED = ("accuracy", "right for the right reason", "accuracy, harder", "right for the right reason, harder")
"""Titles of the metrics in which the arms are compared; more is better."""
MIN_SEEDS = 3
"""Smallest number of seeds of a test."""

Runs = Mapping[str, Mapping[int, Run]]
"""Runs of one world by arm and seed."""


@dataclass(frozen=True)
class Difference:
    """An arm minus FAPO in one metric, over the seeds that both have."""

    world: str
    """Name of the world."""
    arm: str
    """Name of the arm."""
    metric: str
    """Title of the metric."""
    values: tuple[float, ...]
    """Difference of each seed."""
    interval: Interval
    """95 % interval of the mean by Student's t."""
    bootstrap: Interval
    """95 % interval of the mean by the percentiles of bootstrap draws of the seeds."""
    p: float
    """p-value of the t test."""
    corrected: float
    """p-value after Holm's correction for all differences of the page."""
    detectable: float
    """Smallest difference that this many seeds with this spread find with probability POWER, at 5 %, uncorrected."""


def read_worlds(folder: Path) -> dict[str, dict[str, dict[int, Run]]]:
    """Return the finished runs in a folder by world, arm and seed.

    Raises:
        DataError: The folder has no finished run.
    """
    found: dict[str, dict[str, dict[int, Run]]] = {world: defaultdict(dict) for world in WORLDS}
    for world in WORLDS:
        for arm in WORLDS[world].arms:
            for path in sorted(folder.glob(f"{world}-{arm}-*")):
                seed = path.name.removeprefix(f"{world}-{arm}-")  # the name of an arm may begin with that of another
                if seed.isdigit() and is_finished(path):
                    found[world][arm][int(seed)] = read_run(path)
    if not any(found.values()):
        raise DataError(
            f"{folder}: no finished runs; `python -m experiments.miniature comparison --output {folder}` makes them"
        )
    return {world: dict(arms) for world, arms in found.items() if arms}


def differences(worlds: Mapping[str, Runs]) -> list[Difference]:
    """Return all paired differences to FAPO, with p-values corrected together (Holm 1979).

    Arms with fewer than MIN_SEEDS seeds in common with FAPO are left out. A t test needs normal differences; the
    bootstrap interval beside it does not.
    """
    from scipy import stats

    found: list[tuple[str, str, str, tuple[float, ...]]] = []
    for world, arms in worlds.items():
        for arm in COMPARED:
            seeds = sorted(arms.get(arm, {}).keys() & arms.get(REFERENCE, {}).keys())
            if arm == REFERENCE or len(seeds) < MIN_SEEDS:
                continue
            for title in TESTED:
                key = SHOWN[title]
                values = tuple(end(arms[arm][s], key) - end(arms[REFERENCE][s], key) for s in seeds)
                found.append((world, arm, title, values))
    if not found:
        return []
    p_values = [float(stats.ttest_1samp(values, 0.0).pvalue) if any(values) else 1.0 for *_, values in found]
    corrected = holm(p_values)
    out = []
    for (world, arm, title, values), p, q in zip(found, p_values, corrected, strict=True):
        draws = np.random.default_rng(SEED).choice(values, (NUM_RESAMPLES, len(values))).mean(axis=1)
        between = mean_interval(values), percentile_interval(draws)
        out.append(
            Difference(world, arm, title, values, *between, p, q, detectable_effect(len(values)) * stdev(values))
        )
    return out


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number: rejecting those up to .05 is wrong anywhere with probability .05.

    The i-th smallest of m (i from 0) becomes the largest of (m - j) p_j over j <= i, at most 1. Source: Holm 1979.
    """
    corrected, largest = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def write_comparison(folder: Path, out: Path) -> Path:
    """Write README.md and results.json into `out`, and return the path of the page.

    Raises:
        DataError: `folder` has no finished run.
    """
    worlds = read_worlds(folder)
    out.mkdir(parents=True, exist_ok=True)
    found = differences(worlds)
    text = [
        "# Ways to use a verdict, compared",
        "",
        "Each arm is trained for 50 steps of 48 questions with 8 rollouts. The filter keeps 4 of the 8, so that all",
        "arms write the same number of rollouts. All arms of a world have the same judge: the GenRM that Step-RL",
        "trained with the same seed, unless the page names another. The end of a run is the mean of its last three",
        "validations (steps 30, 40 and 50) of 512 questions each, counted by the oracle. Differences are those of",
        "runs with the same seed.",
        "",
        *_power(found),
        "```console",
        "python -m experiments.miniature comparison --output runs/comparison --docs docs/results/comparison "
        "--seeds 0 1 2 3 4 5 6 7",
        "```",
    ]
    for world, arms in worlds.items():
        note = [WORLDS[world].note, ""] if WORLDS[world].note else []
        text += ["", f"## {WORLDS[world].title}", "", *note, *_ends(arms), "", *_tested(world, found)]
    (out / "README.md").write_text("\n".join(text).rstrip() + "\n", encoding="utf-8")
    numbers = {
        "ends": {
            world: {
                arm: {title: {seed: end(run, key) for seed, run in by_seed.items()} for title, key in SHOWN.items()}
                for arm, by_seed in arms.items()
            }
            for world, arms in worlds.items()
        },
        "differences": [asdict(difference) for difference in found],
    }
    (out / "results.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    return out / "README.md"


def _power(found: Sequence[Difference]) -> list[str]:
    """Return what the seeds can see, whatever the results are, and how often both intervals agree; [] without tests."""
    if not found:
        return []
    strictest = 0.05 / len(found)
    seeds = sorted({len(d.values) for d in found})
    agree = sum((d.interval[0] <= 0 <= d.interval[1]) == (d.bootstrap[0] <= 0 <= d.bootstrap[1]) for d in found)
    return [
        "What n paired seeds can see: the smallest difference, in standard deviations of the differences, that a t",
        f"test finds with probability {POWER}. It does not depend on the results.",
        "",
        f"| seeds | {' | '.join(map(str, seeds))} |",
        "|---" * (len(seeds) + 1) + "|",
        f"| at 5 % | {' | '.join(f'{detectable_effect(n):.1f}' for n in seeds)} |",
        f"| at 5 % / {len(found)}, the first step of Holm | "
        + " | ".join(f"{detectable_effect(n, strictest):.1f}" for n in seeds)
        + " |",
        "",
        "*Detectable* in the tables is the first of these rows times the spread that was measured. Student's",
        f"interval and the bootstrap's agree whether 0 is inside in {agree} of {len(found)} comparisons. With three or",
        "four seeds the bootstrap's is too narrow: read Student's. *Tokens of the judge* are those that it writes in",
        "the training of a run.",
        "",
    ]


def _ends(arms: Runs) -> list[str]:
    """Return the table of the ends of all arms: mean and standard deviation over the seeds."""
    lines = [
        f"| arm | seeds | {' | '.join(SHOWN)} | tokens of a verdict | tokens of the judge, thousands "
        "| seconds a step |",
        "|---" * (len(SHOWN) + 5) + "|",
    ]
    first = {
        title: [start(run, key) for by_seed in arms.values() for run in by_seed.values()]
        for title, key in SHOWN.items()
    }
    lines.append("| *start* | | " + " | ".join(f"{fmean(values):.3f}" for values in first.values()) + " | | | |")
    for arm in COMPARED:
        if by_seed := arms.get(arm):
            runs = list(by_seed.values())
            cells = [_spread([end(run, key) for run in runs]) for key in SHOWN.values()]
            cells += [_verdict_tokens(runs), _judge_tokens(runs), _spread([_seconds(run) for run in runs], 1)]
            lines.append(f"| {LOOKS[arm][0]} | {len(runs)} | {' | '.join(cells)} |")
    return lines


def _tested(world: str, found: Sequence[Difference]) -> list[str]:
    """Return the table of paired differences to FAPO in one world."""
    lines = [
        "| arm - FAPO | metric | mean | 95 %, t | 95 %, bootstrap | p | p, Holm | seeds above 0 | detectable |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for d in found:
        if d.world == world:
            bold = "**" if d.corrected < 0.05 else ""
            above = f"{sum(value > 0 for value in d.values)} of {len(d.values)}"
            cells = (
                *(LOOKS[d.arm][0], d.metric, f"{bold}{fmean(d.values):+.3f}{bold}", _between(d.interval)),
                *(_between(d.bootstrap), f"{d.p:.2g}", f"{d.corrected:.2g}", above, f"{d.detectable:.3f}"),
            )
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _spread(values: Sequence[float], digits: int = 3) -> str:
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values):.{digits}f}{spread}"


def _between(interval: Interval) -> str:
    return f"{interval[0]:+.3f} to {interval[1]:+.3f}"


def _verdict_tokens(runs: Sequence[Run]) -> str:
    """Return the mean tokens of a verdict in training; empty for runs without a judge."""
    values = [value for run in runs for value in run.series("judge/tokens", "train").values]
    return f"{fmean(values):.1f}" if values else ""


def _judge_tokens(runs: Sequence[Run]) -> str:
    """Return the thousands of tokens that the judge writes in the training of a run, on average; empty for none.

    A run that was resumed has read a part of the critiques from its cache, and is left out.
    """
    whole = [run for run in runs if not any(run.series("judge/from_cache", "train").values)]
    totals = [sum(run.series("judge/completion_tokens", "train").values) for run in whole]
    return f"{fmean(totals) / 1000:.0f}" if any(totals) else ""


def _seconds(run: Run) -> float:
    return fmean(measured_series(run, "step_time", "train").values)
