"""Write the page of `python -m experiments.miniature comparison`: ways to use a verdict, with paired differences.

The page is made of the runs in a folder and of those in its results.json. So the comparison can be made in parts, on
one machine after the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
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
OVERVIEW = "right for the right reason"
"""Title of the metric of the first table, which has all worlds."""
MIN_WORLDS = 2
"""Smallest number of worlds of an arm in that table."""

Key = tuple[str, str, int]
"""World, arm and seed of a run."""


@dataclass(frozen=True)
class Result:
    """What the page needs to know of one run. Unknown costs are None."""

    world: str
    """Name of the world."""
    arm: str
    """Name of the arm."""
    seed: int
    """Seed."""
    start: Mapping[str, float]
    """Each metric of SHOWN at the first validation, by its title."""
    end: Mapping[str, float]
    """Each metric of SHOWN at the end of the run, by its title."""
    verdict_tokens: float | None = None
    """Mean tokens of a verdict in training; None without a judge."""
    judge_tokens: float | None = None
    """Tokens that the judge has written in training; None without a judge, and for a resumed run, which has read a part
    of the critiques from its cache."""
    step_seconds: float | None = None
    """Mean seconds of a step."""

    @property
    def key(self) -> Key:
        """World, arm and seed."""
        return self.world, self.arm, self.seed


Results = Mapping[str, Mapping[int, Result]]
"""Results of one world by arm and seed."""


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


def read_results(folder: Path) -> dict[Key, Result]:
    """Return the results of the finished runs in a folder of run folders."""
    found = [
        measure(read_run(path), world, arm, int(seed))
        for world in WORLDS
        for arm in WORLDS[world].arms
        for path in sorted(folder.glob(f"{world}-{arm}-*"))
        # the name of an arm may begin with that of another
        if (seed := path.name.removeprefix(f"{world}-{arm}-")).isdigit() and is_finished(path)
    ]
    return {result.key: result for result in found}


def stored_results(file: Path) -> dict[Key, Result]:
    """Return the results that an earlier `write_comparison` has stored; {} without the file."""
    if not file.exists():
        return {}
    results = [Result(**row) for row in json.loads(file.read_text(encoding="utf-8"))["runs"]]
    return {result.key: result for result in results}


def by_world(results: Iterable[Result]) -> dict[str, dict[str, dict[int, Result]]]:
    """Return results by world, arm and seed, in the order of the page; those that it no longer has are left out."""
    found: dict[str, dict[str, dict[int, Result]]] = {}
    known = {(world, arm): number for number, (world, arm) in enumerate((w, a) for w in WORLDS for a in WORLDS[w].arms)}
    kept = [result for result in results if (result.world, result.arm) in known]
    for result in sorted(kept, key=lambda r: (known[r.world, r.arm], r.seed)):
        found.setdefault(result.world, {}).setdefault(result.arm, {})[result.seed] = result
    return found


def measure(run: Run, world: str, arm: str, seed: int) -> Result:
    """Return what the page needs to know of a run."""
    verdicts = run.series("judge/tokens", "train").values
    resumed = any(run.series("judge/from_cache", "train").values)
    total = sum(run.series("judge/completion_tokens", "train").values)
    return Result(
        world,
        arm,
        seed,
        {title: start(run, key) for title, key in SHOWN.items()},
        {title: end(run, key) for title, key in SHOWN.items()},
        fmean(verdicts) if verdicts else None,
        total if total and not resumed else None,
        fmean(measured_series(run, "step_time", "train").values),
    )


def differences(worlds: Mapping[str, Results]) -> list[Difference]:
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
                values = tuple(arms[arm][s].end[title] - arms[REFERENCE][s].end[title] for s in seeds)
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

    Runs that are in results.json already stay on the page, unless the folder has a run of the same world, arm and seed.

    Args:
        folder: Folder with run folders.
        out: Folder of the page.

    Raises:
        DataError: There is neither a finished run in `folder` nor one in results.json.
    """
    results = stored_results(out / "results.json") | read_results(folder)
    if not results:
        raise DataError(
            f"{folder}: no finished runs; `python -m experiments.miniature comparison --output {folder}` makes them"
        )
    worlds = by_world(results.values())
    out.mkdir(parents=True, exist_ok=True)
    found = differences(worlds)
    text = [
        "# Ways to use a verdict, compared",
        "",
        "Each arm is trained for 50 steps of 48 questions with 8 rollouts. The filter keeps 4 of the 8, so that all",
        "arms write the same number of rollouts. All arms of a world have the same judge: the GenRM that Step-RL",
        "trained with the same seed, unless the page names another. The end of a run is the mean of its last three",
        "validations (steps 30, 40 and 50) of 512 questions each, counted by the oracle. Differences are those of",
        "runs with the same seed. The page keeps the runs of earlier calls, which are in results.json. They may come",
        "from other machines, so *seconds a step* is a rough number.",
        "",
        *_power(found),
        "```console",
        "python -m experiments.miniature comparison --output runs/comparison --docs docs/results/comparison "
        "--seeds 0 1 2 3 4 5 6 7",
        "```",
        *_overview(worlds, found),
    ]
    for world, arms in worlds.items():
        note = [WORLDS[world].note, ""] if WORLDS[world].note else []
        text += ["", f"## {WORLDS[world].title}", "", *note, *_ends(arms), "", *_tested(world, found)]
    (out / "README.md").write_text("\n".join(text).rstrip() + "\n", encoding="utf-8")
    kept = [asdict(result) for arms in worlds.values() for seeds in arms.values() for result in seeds.values()]
    numbers = {"runs": kept, "differences": [asdict(difference) for difference in found]}
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


def _overview(worlds: Mapping[str, Results], found: Sequence[Difference]) -> list[str]:
    """Return the table of OVERVIEW at the end of the runs: a row for each world, a column for each common arm."""
    common = [arm for arm in COMPARED if sum(bool(arms.get(arm)) for arms in worlds.values()) >= MIN_WORLDS]
    if not common:
        return []
    surely = {(d.world, d.arm) for d in found if d.metric == OVERVIEW and d.corrected < 0.05}
    lines = [
        "",
        "## All worlds",
        "",
        f"Fraction of the answers that are {OVERVIEW} at the end, with the number of seeds in brackets.",
        f"Bold: differs from {LOOKS[REFERENCE][0]} with p < .05 after Holm's correction. Arms of a single world are in",
        "the table of that world.",
        "",
        f"| world | start | {' | '.join(LOOKS[arm][0] for arm in common)} |",
        "|---" * (len(common) + 2) + "|",
    ]
    for world, arms in worlds.items():
        cells = [_mean([r.start[OVERVIEW] for by_seed in arms.values() for r in by_seed.values()], 3)]
        for arm in common:
            ends = [result.end[OVERVIEW] for result in arms.get(arm, {}).values()]
            bold = "**" if (world, arm) in surely else ""
            cells.append(f"{bold}{_spread(ends)}{bold} ({len(ends)})" if ends else "")
        lines.append(f"| {WORLDS[world].title} | {' | '.join(cells)} |")
    return lines


def _ends(arms: Results) -> list[str]:
    """Return the table of the ends of all arms: mean and standard deviation over the seeds."""
    lines = [
        f"| arm | seeds | {' | '.join(SHOWN)} | tokens of a verdict | tokens of the judge, thousands "
        "| seconds a step |",
        "|---" * (len(SHOWN) + 5) + "|",
    ]
    every = [result for by_seed in arms.values() for result in by_seed.values()]
    first = [_mean([result.start[title] for result in every], 3) for title in SHOWN]
    lines.append(f"| *start* | | {' | '.join(first)} | | | |")
    for arm in COMPARED:
        if by_seed := arms.get(arm):
            results = list(by_seed.values())
            cells = [_spread([result.end[title] for result in results]) for title in SHOWN]
            thousands = [r.judge_tokens / 1000 for r in results if r.judge_tokens is not None]
            cells += [
                _mean([r.verdict_tokens for r in results], 1),
                _mean(thousands, 0),
                _mean([r.step_seconds for r in results], 1),
            ]
            lines.append(f"| {LOOKS[arm][0]} | {len(results)} | {' | '.join(cells)} |")
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


def _spread(values: Sequence[float]) -> str:
    spread = f" ± {stdev(values):.3f}" if len(values) > 1 else ""
    return f"{fmean(values):.3f}{spread}"


def _mean(values: Sequence[float | None], digits: int) -> str:
    """Return the mean of the known values; empty for none."""
    known = [value for value in values if value is not None]
    return f"{fmean(known):.{digits}f}" if known else ""


def _between(interval: Interval) -> str:
    return f"{interval[0]:+.3f} to {interval[1]:+.3f}"
