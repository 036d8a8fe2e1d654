"""Predictions against labels: the benchmarks' numbers and their intervals. Pure; fractions in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fapo.bootstrap import NUM_RESAMPLES, SEED, Interval, interval
from fapo.data import LabelledSolution
from fapo.metrics import PRF, ProcessBenchScore, flawed_positive_prf, processbench_f1
from fapo.types import Verdict

Invalid = Literal["wrong", "flagged"]


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
    """Precision, recall and F1 of "flagged"; what `invalid` means: fapo.metrics.flawed_positive_prf."""
    truth = [row.error_step is not None for row in rows]
    point = flawed_positive_prf([verdict.flawed for verdict in verdicts], truth, invalid)
    rest = point.n - point.tp - point.fp - point.fn
    drawn = _resample((point.tp, point.fp, point.fn, rest), np.random.default_rng(SEED))
    return FlawedPositiveScore(point, *(interval(values) for values in _prf(*drawn[:3])))


def score_process(rows: Sequence[LabelledSolution], names: Sequence[str], verdicts: Sequence[Verdict]) -> ProcessScore:
    """Accuracies and F1 of each subset (`names`: that of each row), the mean of these F1, and all rows together."""
    rng = np.random.default_rng(SEED)
    subsets, drawn = {}, []
    for name in sorted(set(names)):
        inside = [index for index, other in enumerate(names) if other == name]
        labels = [rows[index].error_step for index in inside]
        answers = [verdicts[index] for index in inside]
        drawn.append(_resample(_hits(answers, labels), rng))
        subsets[name] = _subset(answers, labels, drawn[-1])
    f1 = np.mean([_accuracies(*counts)[2] for counts in drawn], axis=0)
    return ProcessScore(
        subsets=subsets,
        pooled=_subset(verdicts, [row.error_step for row in rows], np.sum(drawn, axis=0)),
        mean_f1=math.fsum(score.point.f1 for score in subsets.values()) / len(subsets),
        mean_f1_interval=interval(f1),
    )


def _subset(verdicts: Sequence[Verdict], labels: Sequence[int | None], drawn: np.ndarray) -> SubsetScore:
    return SubsetScore(processbench_f1(verdicts, labels), *(interval(values) for values in _accuracies(*drawn)))


def _hits(verdicts: Sequence[Verdict], labels: Sequence[int | None]) -> tuple[int, int, int, int]:
    """Right and wrong answers on rows with an error, right and wrong ones on rows without."""
    counts = {(error, right): 0 for error in (True, False) for right in (True, False)}
    for verdict, label in zip(verdicts, labels, strict=True):
        counts[label is not None, verdict.status == "ok" and verdict.error_step == label] += 1
    return counts[True, True], counts[True, False], counts[False, True], counts[False, False]


# --- Bootstrap over rows ---------------------------------------------------------------------------------------------
# The numbers depend on how many rows are of each kind only. Drawing n rows with replacement and counting kinds is one
# draw of the multinomial distribution, so that a resample costs the same for ten rows and for ten thousand.


def _resample(counts: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Counts of the kinds in NUM_RESAMPLES draws of as many rows: [num_kinds, NUM_RESAMPLES]."""
    total = sum(counts)
    shares = [count / total for count in counts] if total else [1.0] + [0.0] * (len(counts) - 1)
    return rng.multinomial(total, shares, size=NUM_RESAMPLES).T


def _prf(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As fapo.metrics.flawed_positive_prf, of arrays of counts."""
    flawed = tp + fn > 0
    precision = np.where(tp + fp > 0, tp / np.maximum(tp + fp, 1), 0.0)
    recall = np.where(flawed, tp / np.maximum(tp + fn, 1), np.nan)
    return precision, recall, np.where(flawed, 2 * tp / np.maximum(2 * tp + fp + fn, 1), np.nan)


def _accuracies(
    hit: np.ndarray, missed: np.ndarray, passed: np.ndarray, accused: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As fapo.metrics.processbench_f1, of arrays of counts."""
    error = np.where(hit + missed > 0, hit / np.maximum(hit + missed, 1), np.nan)
    correct = np.where(passed + accused > 0, passed / np.maximum(passed + accused, 1), np.nan)
    total = error + correct
    return error, correct, np.where(total == 0, 0.0, 2 * error * correct / np.where(total == 0, 1.0, total))
