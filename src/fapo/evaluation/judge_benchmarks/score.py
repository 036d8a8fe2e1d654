"""Predictions against labels: the benchmarks' numbers and their intervals. Pure; fractions in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fapo.evaluation.intervals import SEED, Interval, percentile_interval, resample_counts
from fapo.judge.quality import (
    PRF,
    Counts,
    Invalid,
    ProcessBenchScore,
    flawed_positive_prf,
    precision_recall_f1,
    processbench_counts,
    processbench_f1,
    processbench_rates,
)
from fapo.types import LabelledSolution, Verdict


@dataclass(frozen=True)
class FlawedPositiveScore:
    """FlawedPositiveBench: how well a judge finds the flawed ones among solutions with a right answer."""

    point: PRF
    """The numbers."""
    precision: Interval
    """Interval of the precision."""
    recall: Interval
    """Interval of the recall."""
    f1: Interval
    """Interval of F1."""


@dataclass(frozen=True)
class SubsetScore:
    """One subset of ProcessBench, or all of it: how well a judge finds the first wrong step."""

    point: ProcessBenchScore
    """The numbers."""
    error_acc: Interval
    """Interval of the accuracy on rows with a wrong step."""
    correct_acc: Interval
    """Interval of the accuracy on rows without."""
    f1: Interval
    """Interval of F1."""


@dataclass(frozen=True)
class ProcessScore:
    """ProcessBench as a whole."""

    subsets: Mapping[str, SubsetScore]
    """By name, in alphabetical order."""
    pooled: SubsetScore
    """All rows as one subset."""
    mean_f1: float
    """Mean of the subsets' F1; NaN when one of them is."""
    mean_f1_interval: Interval
    """Its interval."""


def score_flawed_positive(
    rows: Sequence[LabelledSolution], verdicts: Sequence[Verdict], invalid: Invalid = "wrong"
) -> FlawedPositiveScore:
    """Precision, recall and F1 of "flagged"; what `invalid` means: fapo.judge.quality.flawed_positive_prf."""
    truth = [row.error_step is not None for row in rows]
    point = flawed_positive_prf([verdict.flawed for verdict in verdicts], truth, invalid)
    rest = point.n - point.tp - point.fp - point.fn
    drawn = resample_counts((point.tp, point.fp, point.fn, rest), np.random.default_rng(SEED))
    return FlawedPositiveScore(point, *(percentile_interval(values) for values in precision_recall_f1(*drawn[:3])))


def score_process(rows: Sequence[LabelledSolution], names: Sequence[str], verdicts: Sequence[Verdict]) -> ProcessScore:
    """Accuracies and F1 of each subset (`names`: that of each row), the mean of these F1, and all rows together."""
    rng = np.random.default_rng(SEED)
    subsets, drawn = {}, []
    for name in sorted(set(names)):
        inside = [index for index, other in enumerate(names) if other == name]
        labels = [rows[index].error_step for index in inside]
        answers = [verdicts[index] for index in inside]
        drawn.append(resample_counts(processbench_counts(answers, labels), rng))
        subsets[name] = _subset(answers, labels, drawn[-1])
    f1 = np.mean([processbench_rates(*counts)[2] for counts in drawn], axis=0)
    return ProcessScore(
        subsets=subsets,
        pooled=_subset(verdicts, [row.error_step for row in rows], np.sum(drawn, axis=0)),
        mean_f1=math.fsum(score.point.f1 for score in subsets.values()) / len(subsets),
        mean_f1_interval=percentile_interval(f1),
    )


def _subset(verdicts: Sequence[Verdict], labels: Sequence[int | None], drawn: Counts) -> SubsetScore:
    return SubsetScore(
        processbench_f1(verdicts, labels), *(percentile_interval(values) for values in processbench_rates(*drawn))
    )
