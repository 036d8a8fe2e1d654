"""Scores of verdicts against labels, with bootstrap intervals over problems. Pure functions; rates are fractions.

Solutions of one problem are not independent, so what is drawn are problems with all of their rows. Rows are of one
problem if the texts of their questions are equal. Where each problem has one row, rows are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fapo.evaluation.intervals import (
    SEED,
    Interval,
    group_sums,
    grouped_difference_interval,
    grouped_f1_interval,
    grouped_rate_interval,
    percentile_interval,
    resample_counts,
)
from fapo.judge.quality import (
    PRF,
    Counts,
    Invalid,
    ProcessBenchScore,
    confusion,
    flawed_positive_prf,
    precision_recall_f1,
    processbench_counts,
    processbench_f1,
    processbench_rates,
    step_distances,
    youden_j,
)
from fapo.types import LabelledSolution, Verdict

STEP_LIMITS = (3, 6, 10)
"""Upper limits of the ranges of the number of steps; the last range has none."""
STEP_RANGES = ("1-3", "4-6", "7-10", "11+")
"""Names of these ranges."""
LENGTH_LIMITS = (500, 1000, 2000)
"""Upper limits of the ranges of the length of a solution in characters; the last range has none."""
LENGTH_RANGES = ("0-500", "501-1000", "1001-2000", "2001+")
"""Names of these ranges."""


@dataclass(frozen=True)
class FlawedPositiveScore:
    """FlawedPositiveBench: how well a judge finds the flawed ones among solutions with a correct answer."""

    point: PRF
    """Precision, recall and F1."""
    num_problems: int
    """Number of problems among the rows."""
    precision: Interval
    """Interval of the precision."""
    recall: Interval
    """Interval of the recall."""
    f1: Interval
    """Interval of F1."""
    youden_j: Interval
    """Interval of Youden's J."""
    by_num_steps: Mapping[str, PRF]
    """Numbers of solutions with few or many steps, by the range of their number of steps."""
    by_length: Mapping[str, PRF]
    """Numbers of short and long solutions, by the range of their length in characters."""


@dataclass(frozen=True)
class SubsetScore:
    """One subset of ProcessBench, or all of it: how well a judge finds the first wrong step."""

    point: ProcessBenchScore
    """Accuracies and F1."""
    error_acc: Interval
    """Interval of the accuracy on rows with a wrong step."""
    correct_acc: Interval
    """Interval of the accuracy on rows without a wrong step."""
    f1: Interval
    """Interval of F1."""


@dataclass(frozen=True)
class ProcessScore:
    """ProcessBench as a whole."""

    subsets: Mapping[str, SubsetScore]
    """Score of each subset by name, in alphabetical order."""
    pooled: SubsetScore
    """Score of all rows as one subset."""
    mean_f1: float
    """Mean F1 of the subsets; NaN if the F1 of one of them is NaN."""
    mean_f1_interval: Interval
    """Interval of the mean F1."""
    flags: FlawedPositiveScore
    """How well the judge finds the rows with an error, whatever step it names."""
    distances: Mapping[int, int]
    """Number of verdicts by named step minus first wrong step, see `step_distances`."""


def score_flawed_positive(
    rows: Sequence[LabelledSolution], verdicts: Sequence[Verdict], invalid: Invalid = "wrong"
) -> FlawedPositiveScore:
    """Score how well verdicts flag the flawed solutions.

    Args:
        rows: Labelled solutions with a correct answer, [num_rows].
        verdicts: Verdicts in the same order, [num_rows].
        invalid: Meaning of an answer without a verdict, see `fapo.judge.quality.flawed_positive_prf`.

    Returns:
        Precision, recall and F1 with their intervals.
    """
    truth = [row.error_step is not None for row in rows]
    flags = [verdict.flawed for verdict in verdicts]
    counts = [flag_counts(row, verdict, invalid) for row, verdict in zip(rows, verdicts, strict=True)]
    of_problems = by_problem(rows, np.array(counts, dtype=np.int64).reshape(-1, 4))
    tp, fp, fn, tn = of_problems.T
    drawn = resample_counts(of_problems, np.random.default_rng(SEED))
    precision, recall, f1 = precision_recall_f1(*drawn[:3])
    rates = recall, processbench_rates(*drawn[[0, 2, 3, 1]])[1]
    return FlawedPositiveScore(
        flawed_positive_prf(flags, truth, invalid),
        len(of_problems),
        percentile_interval(precision, grouped_rate_interval(tp, tp + fp)),
        percentile_interval(recall, grouped_rate_interval(tp, tp + fn)),
        percentile_interval(f1, grouped_f1_interval(tp, fp, fn)),
        percentile_interval(youden_j(*drawn), grouped_difference_interval(tp, tp + fn, fp, fp + tn), rates),
        by_num_steps=by_num_steps(rows, verdicts, invalid),
        by_length=by_length(rows, verdicts, invalid),
    )


def flag_counts(row: LabelledSolution, verdict: Verdict, invalid: Invalid) -> tuple[int, int, int, int]:
    """Return what a row adds to (tp, fp, fn, tn); see `score_flawed_positive`."""
    tp, fp, fn = confusion(verdict.flawed, row.error_step is not None, invalid)
    return int(tp), int(fp), int(fn), int(not (tp or fp or fn))


def step_counts(row: LabelledSolution, verdict: Verdict) -> tuple[int, int, int, int]:
    """Return what a row adds to the four counts of `processbench_counts`."""
    return processbench_counts([verdict], [row.error_step])


def by_problem(rows: Sequence[LabelledSolution], counts: npt.ArrayLike) -> Counts:
    """Return the counts of each problem, which are the sums over its rows.

    Args:
        rows: Labelled solutions, [num_rows].
        counts: Counts of each row, [num_rows, num_counts].

    Returns:
        Counts, [num_problems, num_counts].
    """
    return group_sums(counts, [row.problem.text for row in rows])


def by_num_steps(
    rows: Sequence[LabelledSolution], verdicts: Sequence[Verdict], invalid: Invalid = "wrong"
) -> dict[str, PRF]:
    """Return the numbers of the solutions in each of STEP_RANGES that holds any; see `score_flawed_positive`."""
    return _by_range([len(row.steps) for row in rows], STEP_LIMITS, STEP_RANGES, rows, verdicts, invalid)


def by_length(
    rows: Sequence[LabelledSolution], verdicts: Sequence[Verdict], invalid: Invalid = "wrong"
) -> dict[str, PRF]:
    """Return the numbers of the solutions in each of LENGTH_RANGES that holds any; see `score_flawed_positive`."""
    sizes = [sum(map(len, row.steps)) for row in rows]
    return _by_range(sizes, LENGTH_LIMITS, LENGTH_RANGES, rows, verdicts, invalid)


def _by_range(
    sizes: Sequence[int],
    limits: Sequence[int],
    names: Sequence[str],
    rows: Sequence[LabelledSolution],
    verdicts: Sequence[Verdict],
    invalid: Invalid,
) -> dict[str, PRF]:
    """Return the numbers of the rows in each range of a size that holds rows."""
    found: dict[str, list[int]] = {name: [] for name in names}
    for index, size in enumerate(sizes):
        found[names[sum(size > limit for limit in limits)]].append(index)
    return {
        name: flawed_positive_prf(
            [verdicts[i].flawed for i in inside], [rows[i].error_step is not None for i in inside], invalid
        )
        for name, inside in found.items()
        if inside
    }


def score_process(rows: Sequence[LabelledSolution], names: Sequence[str], verdicts: Sequence[Verdict]) -> ProcessScore:
    """Score how well verdicts name the first wrong step.

    Args:
        rows: Labelled solutions, [num_rows].
        names: Subset of each row, [num_rows].
        verdicts: Verdicts in the same order, [num_rows].

    Returns:
        Accuracies and F1 of each subset, the mean of these F1, and the score of all rows together.
    """
    rng = np.random.default_rng(SEED)
    counts = [step_counts(row, verdict) for row, verdict in zip(rows, verdicts, strict=True)]
    subsets, of_problems, drawn = {}, [], []
    for name in sorted(set(names)):
        inside = [index for index, other in enumerate(names) if other == name]
        of_problems.append(by_problem([rows[index] for index in inside], [counts[index] for index in inside]))
        drawn.append(resample_counts(of_problems[-1], rng))
        point = processbench_f1([verdicts[index] for index in inside], [rows[index].error_step for index in inside])
        subsets[name] = _subset(point, of_problems[-1], drawn[-1])
    labels = [row.error_step for row in rows]
    error_acc, correct_acc, f1 = zip(*(processbench_rates(*of_subset) for of_subset in drawn), strict=True)
    mean = math.fsum(score.point.f1 for score in subsets.values()) / len(subsets)
    below, above = (math.hypot(*(score.f1[end] - score.point.f1 for score in subsets.values())) for end in (0, 1))
    closed = mean - below / len(subsets), mean + above / len(subsets)
    return ProcessScore(
        subsets=subsets,
        pooled=_subset(processbench_f1(verdicts, labels), np.concatenate(of_problems), np.sum(drawn, axis=0)),
        mean_f1=mean,
        mean_f1_interval=percentile_interval(np.mean(f1, axis=0), closed, [*error_acc, *correct_acc]),
        flags=score_flawed_positive(rows, verdicts),
        distances=dict(sorted(step_distances(verdicts, labels).items())),
    )


def _subset(point: ProcessBenchScore, of_problems: Counts, drawn: Counts) -> SubsetScore:
    """Return the score of one subset.

    Args:
        point: Accuracies and F1.
        of_problems: The counts of `processbench_counts` of each problem, [num_problems, 4].
        drawn: These counts of all rows in bootstrap draws, [4, num_draws].

    Returns:
        The score with its intervals.
    """
    error_correct, error_wrong, fine_correct, fine_wrong = of_problems.T
    error = grouped_rate_interval(error_correct, error_correct + error_wrong)
    fine = grouped_rate_interval(fine_correct, fine_correct + fine_wrong)
    error_acc, correct_acc, f1 = processbench_rates(*drawn)
    return SubsetScore(
        point,
        percentile_interval(error_acc, error),
        percentile_interval(correct_acc, fine),
        percentile_interval(
            f1, (_harmonic_mean(error[0], fine[0]), _harmonic_mean(error[1], fine[1])), (error_acc, correct_acc)
        ),
    )


def _harmonic_mean(first: float, second: float) -> float:
    """Return the harmonic mean of two rates; 0 if both are 0."""
    return 2 * first * second / (first + second) if first + second else 0.0
