"""How good a judge is: precision, recall and F1 of its flags, accuracy of the steps it names, agreement of raters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from fapo.types import Verdict


def ratio(numerator: float, denominator: float) -> float:
    """Return numerator / denominator, NaN for a denominator of 0."""
    return float(numerator) / float(denominator) if denominator else math.nan


Invalid = Literal["wrong", "flagged"]
"""What a row without a verdict counts as: the wrong answer whatever the truth, or flagged."""
Counts = npt.NDArray[np.int64]
Count = TypeVar("Count", int, Counts)
Rates = npt.NDArray[np.float64]


# --- Flawed or not ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PRF:
    """How well a judge finds flawed positives among rollouts with a correct answer."""

    n: int
    """Number of rows."""
    num_flawed: int
    """Number of rows that are flawed positives in truth."""
    precision: float
    """tp / (tp + fp); 0 when nothing was flagged."""
    recall: float
    """tp / (tp + fn); NaN without flawed rows."""
    f1: float
    """2 tp / (2 tp + fp + fn); NaN without flawed rows."""
    invalid_rate: float
    """Rows without a verdict / rows; NaN without rows."""
    tp: int
    """Number of flawed rows that were flagged."""
    fp: int
    """Number of flawless rows that were flagged; with invalid = "wrong" also of those without a verdict."""
    fn: int
    """Number of flawed rows that were not flagged; with invalid = "wrong" also of those without a verdict."""


def confusion(flagged: bool | None, flawed: bool, invalid: Invalid = "wrong") -> tuple[bool, bool, bool]:
    """Return whether one row is a true positive, a false positive or a false negative.

    Args:
        flagged: `Verdict.flawed`; None without a verdict.
        flawed: The truth.
        invalid: What a row without a verdict counts as.

    Returns:
        (true positive, false positive, false negative); all False for a flawless row that was not flagged.
    """
    if flagged is None:
        flagged = True if invalid == "flagged" else not flawed
    return flagged and flawed, flagged and not flawed, flawed and not flagged


def prf_ratios(tp: Count, fp: Count, fn: Count) -> dict[str, tuple[Count, Count]]:
    """Return precision, recall and f1, each as (numerator, denominator).

    Args:
        tp: Number of true positives.
        fp: Number of false positives.
        fn: Number of false negatives.

    Returns:
        Both parts are sums over rows. The parts of single rows may therefore be added up before the division.
    """
    return {"precision": (tp, tp + fp), "recall": (tp, tp + fn), "f1": (2 * tp, 2 * tp + fp + fn)}


def precision_recall_f1(tp: Counts, fp: Counts, fn: Counts) -> tuple[Rates, Rates, Rates]:
    """Return precision, recall and F1 for arrays of counts.

    Args:
        tp: Numbers of true positives, any shape.
        fp: Numbers of false positives, same shape.
        fn: Numbers of false negatives, same shape.

    Returns:
        Three arrays of this shape. Precision is 0 where nothing was flagged; recall and F1 are NaN where nothing is
        flawed.
    """
    flawed = np.asarray(tp + fn) > 0
    precision, recall, f1 = (
        np.divide(above, below, out=np.zeros(np.shape(below)), where=np.asarray(below) > 0)
        for above, below in prf_ratios(tp, fp, fn).values()
    )
    return precision, np.where(flawed, recall, np.nan), np.where(flawed, f1, np.nan)


def flawed_positive_prf(predicted: Sequence[bool | None], truth: Sequence[bool], invalid: Invalid = "wrong") -> PRF:
    """Return precision, recall and F1 of flagging flawed rows. Source: FlawedPositiveBench.

    Args:
        predicted: `Verdict.flawed` of each row; None without a verdict.
        truth: Whether each row is flawed.
        invalid: "wrong": a row without a verdict is a false negative if it is flawed, otherwise a false positive.
            "flagged": it counts as flagged, which raises recall; for comparison with numbers published that way.

    Returns:
        The rates and the counts behind them.

    Raises:
        ValueError: If the lengths differ or `invalid` is another word.
    """
    _check_same_length(predicted, truth)
    if invalid not in ("wrong", "flagged"):
        raise ValueError(f"invalid must be 'wrong' or 'flagged'; got {invalid!r}")
    rows = [confusion(p, t, invalid) for p, t in zip(predicted, truth, strict=True)]
    tp, fp, fn = np.array(rows, dtype=np.int64).reshape(-1, 3).sum(axis=0)
    precision, recall, f1 = precision_recall_f1(tp, fp, fn)
    return PRF(
        n=len(truth),
        num_flawed=sum(truth),
        precision=float(precision),
        recall=float(recall),
        f1=float(f1),
        invalid_rate=ratio(sum(p is None for p in predicted), len(truth)),
        tp=int(tp),
        fp=int(fp),
        fn=int(fn),
    )


# --- The first wrong step --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProcessBenchScore:
    """How well a judge finds the earliest wrong step, on one subset of ProcessBench."""

    n: int
    """Number of rows."""
    num_error: int
    """Number of rows with a wrong step in truth."""
    error_acc: float
    """Rate of the rows with a wrong step whose earliest one was named exactly; NaN without such rows."""
    correct_acc: float
    """Rate of the rows without a wrong step in which none was found; NaN without such rows."""
    f1: float
    """Harmonic mean of the two accuracies; 0 when both are 0, NaN when either is NaN."""
    invalid_rate: float
    """Rows without a verdict / rows; NaN without rows."""


def processbench_counts(predicted: Sequence[Verdict], labels: Sequence[int | None]) -> tuple[int, int, int, int]:
    """Return correct and wrong answers on rows with an error, then correct and wrong answers on rows without.

    Args:
        predicted: The verdict on each row. A row without a verdict is a wrong answer.
        labels: The earliest wrong step of each row, None for no error.

    Returns:
        Four numbers of rows.

    Raises:
        ValueError: If the lengths differ or a label is negative.
    """
    _check_labels(predicted, labels)
    counts = {(error, correct): 0 for error in (True, False) for correct in (True, False)}
    for verdict, label in zip(predicted, labels, strict=True):
        counts[label is not None, verdict.flawed == (label is not None) and verdict.error_step == label] += 1
    return counts[True, True], counts[True, False], counts[False, True], counts[False, False]


def processbench_rates(
    error_correct: Counts, error_wrong: Counts, fine_correct: Counts, fine_wrong: Counts
) -> tuple[Rates, Rates, Rates]:
    """Return the accuracy on rows with an error, that on rows without, and their harmonic mean (F1).

    Args:
        error_correct: Numbers of rows with an error that were answered correctly, any shape.
        error_wrong: Numbers of rows with an error that were answered wrongly, same shape.
        fine_correct: Numbers of rows without an error that were answered correctly, same shape.
        fine_wrong: Numbers of rows without an error that were answered wrongly, same shape.

    Returns:
        Three arrays of this shape. An accuracy without rows is NaN; F1 is then NaN too, and 0 where both are 0.
    """
    error, fine = (
        np.divide(hit, hit + miss, out=np.full(np.shape(hit), np.nan), where=np.asarray(hit + miss) > 0)
        for hit, miss in ((error_correct, error_wrong), (fine_correct, fine_wrong))
    )
    total = error + fine
    return error, fine, np.where(total == 0, 0.0, 2 * error * fine / np.where(total == 0, 1.0, total))


def processbench_f1(predicted: Sequence[Verdict], labels: Sequence[int | None]) -> ProcessBenchScore:
    """Return ProcessBench's scores of one subset; the benchmark's headline is the mean of its subsets' F1.

    Source: ProcessBench (Zheng et al. 2024).

    Args:
        predicted: The verdict on each row. A row without a verdict is a wrong answer.
        labels: The earliest wrong step of each row, None for no error (the data set writes -1).

    Returns:
        The rates.

    Raises:
        ValueError: If the lengths differ or a label is negative.
    """
    counts = processbench_counts(predicted, labels)
    error_acc, correct_acc, f1 = processbench_rates(*map(np.asarray, counts))
    return ProcessBenchScore(
        n=len(labels),
        num_error=counts[0] + counts[1],
        error_acc=float(error_acc),
        correct_acc=float(correct_acc),
        f1=float(f1),
        invalid_rate=ratio(sum(verdict.status != "ok" for verdict in predicted), len(labels)),
    )


def location_accuracy(predicted: Sequence[Verdict], labels: Sequence[int | None]) -> float:
    """Return the rate of exactly named steps among the verdicts that name a step for a row with an error.

    Args:
        predicted: The verdict on each row. Verdicts without a step are not counted.
        labels: The earliest wrong step of each row, None for no error.

    Returns:
        A rate; NaN where no verdict names a step for a row with an error, as with a judge that answers yes or no.

    Raises:
        ValueError: If the lengths differ or a label is negative.
    """
    _check_labels(predicted, labels)
    found = [
        verdict.error_step == label
        for verdict, label in zip(predicted, labels, strict=True)
        if label is not None and verdict.error_step is not None
    ]
    return ratio(sum(found), len(found))


# --- All scores at once ----------------------------------------------------------------------------------------------


def judge_quality(verdicts: Sequence[Verdict], labels: Sequence[int | None]) -> dict[str, float]:
    """Return precision, recall and F1 of "flagged", the accuracy of the named step, and the rate of invalid verdicts.

    Args:
        verdicts: The verdict on each row. A row without a verdict counts as wrong.
        labels: The earliest wrong step of each row, None for no error.

    Returns:
        precision, recall, f1, location (see `location_accuracy`) and invalid_rate, by name.

    Raises:
        ValueError: If the lengths differ or a label is negative.
    """
    score = flawed_positive_prf([verdict.flawed for verdict in verdicts], [label is not None for label in labels])
    return {
        "precision": score.precision,
        "recall": score.recall,
        "f1": score.f1,
        "location": location_accuracy(verdicts, labels),
        "invalid_rate": score.invalid_rate,
    }


# --- Agreement -------------------------------------------------------------------------------------------------------


def cohen_kappa(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Return kappa = (p_o - p_e) / (1 - p_e): the agreement of two raters beyond chance. Source: Cohen 1960.

    p_o is the rate of equal labels, p_e the rate that two raters with these rates of True would have by chance.

    Args:
        first: Labels of one rater.
        second: Labels of the other rater, in the same order.

    Returns:
        1 for full agreement, 0 for chance, below 0 for less. NaN where p_e = 1 (both gave the same label throughout)
        and without labels.

    Raises:
        ValueError: If the lengths differ.
    """
    _check_same_length(first, second)
    if not first:
        return math.nan
    n = len(first)
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    a, b = sum(first), sum(second)
    expected = (a * b + (n - a) * (n - b)) / n**2
    return math.nan if expected == 1 else (observed - expected) / (1 - expected)


# --- Checks ----------------------------------------------------------------------------------------------------------


def _check_same_length(predicted: Sequence[object], truth: Sequence[object]) -> None:
    if len(predicted) != len(truth):
        raise ValueError(f"one prediction is needed for each row; got {len(predicted)} for {len(truth)} rows")


def _check_labels(predicted: Sequence[Verdict], labels: Sequence[int | None]) -> None:
    _check_same_length(predicted, labels)
    if any(label is not None and label < 0 for label in labels):
        raise ValueError("labels must be step indices from 0, or None for no error; turn the data set's -1 into None")
