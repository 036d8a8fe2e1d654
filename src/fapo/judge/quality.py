"""How good a judge is: precision, recall and F1 of its flags, accuracy of the steps it names, agreement of raters."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from fapo.types import Verdict


def ratio(numerator: float, denominator: float) -> float:
    """Return numerator / denominator; NaN for a denominator of 0."""
    return float(numerator) / float(denominator) if denominator else math.nan


Invalid = Literal["wrong", "flagged"]
"""Rule for a row without a verdict: it counts as a wrong answer, whatever the label, or as flagged."""
Counts = npt.NDArray[np.int64]
"""Numbers of rows."""
Count = TypeVar("Count", int, Counts)
"""One number of rows, or an array of them."""
Rates = npt.NDArray[np.float64]
"""Rates in [0, 1]; NaN where undefined."""


def ratios(numerators: Counts, denominators: Counts) -> Rates:
    """Return numerators / denominators, two arrays of one shape; NaN for each denominator of 0."""
    out, below = np.full(np.shape(denominators), np.nan), np.asarray(denominators)
    np.divide(numerators, below, out=out, where=below > 0)
    return out


# --- Flags: is there an error? ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PRF:
    """Precision, recall and F1 of a judge that flags flawed positives among rollouts with a correct answer."""

    n: int
    """Number of rows."""
    num_flawed: int
    """Number of rows with the label "flawed"."""
    precision: float
    """tp / (tp + fp); 0 without flagged rows."""
    recall: float
    """tp / (tp + fn); NaN without flawed rows."""
    f1: float
    """2 tp / (2 tp + fp + fn); NaN without flawed rows."""
    invalid_rate: float
    """Fraction of rows without a verdict; NaN without rows."""
    tp: int
    """Number of flawed rows that were flagged."""
    fp: int
    """Number of fully correct rows that were flagged or, with invalid = "wrong", have no verdict."""
    fn: int
    """Number of flawed rows that were not flagged or, with invalid = "wrong", have no verdict."""

    @property
    def tn(self) -> int:
        """Number of fully correct rows that were not flagged."""
        return self.n - self.tp - self.fp - self.fn

    @property
    def youden_j(self) -> float:
        """Youden's J, see `youden_j`."""
        return float(youden_j(*map(np.asarray, (self.tp, self.fp, self.fn, self.tn))))

    @property
    def balanced_accuracy(self) -> float:
        """Mean of the accuracies on flawed and on fully correct rows, (1 + J) / 2."""
        return (1 + self.youden_j) / 2

    @property
    def balanced_f1(self) -> float:
        """Harmonic mean of the accuracies on flawed and on fully correct rows; NaN if one of them is undefined."""
        return float(processbench_rates(*map(np.asarray, (self.tp, self.fn, self.tn, self.fp)))[2])


def confusion(flagged: bool | None, flawed: bool, invalid: Invalid = "wrong") -> tuple[bool, bool, bool]:
    """Return whether one row is a true positive, a false positive or a false negative.

    Args:
        flagged: `Verdict.flawed`; None without a verdict.
        flawed: Whether the label of the row is "flawed".
        invalid: Rule for a row without a verdict.

    Returns:
        (true positive, false positive, false negative); all False for a true negative.
    """
    if flagged is None:
        flagged = True if invalid == "flagged" else not flawed
    return flagged and flawed, flagged and not flawed, flawed and not flagged


def prf_ratios(tp: Count, fp: Count, fn: Count) -> dict[str, tuple[Count, Count]]:
    """Return precision, recall and F1, each as (numerator, denominator).

    Both parts are sums over rows, so the parts of single rows can be added before the division.

    Args:
        tp: Number of true positives.
        fp: Number of false positives.
        fn: Number of false negatives.

    Returns:
        The pairs by name: precision, recall, f1.
    """
    return {"precision": (tp, tp + fp), "recall": (tp, tp + fn), "f1": (2 * tp, 2 * tp + fp + fn)}


def precision_recall_f1(tp: Counts, fp: Counts, fn: Counts) -> tuple[Rates, Rates, Rates]:
    """Return precision, recall and F1 for arrays of counts.

    Args:
        tp: Numbers of true positives, any shape.
        fp: Numbers of false positives, same shape.
        fn: Numbers of false negatives, same shape.

    Returns:
        Three arrays of this shape. Precision is 0 without flagged rows; recall and F1 are NaN without flawed rows.
    """
    precision, recall, f1 = (ratios(*parts) for parts in prf_ratios(tp, fp, fn).values())
    return np.nan_to_num(precision), recall, np.where(np.isnan(recall), np.nan, f1)


def youden_j(tp: Counts, fp: Counts, fn: Counts, tn: Counts) -> Rates:
    """Return Youden's J = tp / (tp + fn) - fp / (fp + tn): true positive rate minus false positive rate.

    It is 1 for a perfect judge and 0 for one that flags at random, whatever the rate of flawed rows. Source: Youden
    1950.

    Args:
        tp: Numbers of true positives, any shape.
        fp: Numbers of false positives, same shape.
        fn: Numbers of false negatives, same shape.
        tn: Numbers of true negatives, same shape.

    Returns:
        Array of this shape, in [-1, 1]; NaN without flawed rows or without fully correct ones.
    """
    return ratios(tp, tp + fn) - ratios(fp, fp + tn)


def flawed_positive_prf(predicted: Sequence[bool | None], truth: Sequence[bool], invalid: Invalid = "wrong") -> PRF:
    """Return precision, recall and F1 of a judge that flags flawed rows. Source: FlawedPositiveBench of FAPO.

    Args:
        predicted: `Verdict.flawed` of each row; None without a verdict.
        truth: Whether the label of each row is "flawed".
        invalid: "wrong": a row without a verdict is a false negative if it is flawed, otherwise a false positive.
            "flagged": it counts as flagged, which raises recall; published numbers are often computed this way.

    Returns:
        The rates, and the counts they are computed from.

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


# --- Steps: which is the first wrong one? ----------------------------------------------------------------------------


@dataclass(frozen=True)
class ProcessBenchScore:
    """Scores of a judge that names the earliest wrong step, on one subset of ProcessBench."""

    n: int
    """Number of rows."""
    num_error: int
    """Number of rows with a wrong step by label."""
    error_acc: float
    """Accuracy on rows with a wrong step, where exactly the earliest one must be named; NaN without such rows."""
    correct_acc: float
    """Accuracy on rows without a wrong step, where none must be found; NaN without such rows."""
    f1: float
    """Harmonic mean of the two accuracies; 0 when both are 0, NaN when either is NaN."""
    invalid_rate: float
    """Fraction of rows without a verdict; NaN without rows."""


def processbench_counts(predicted: Sequence[Verdict], labels: Sequence[int | None]) -> tuple[int, int, int, int]:
    """Return the numbers of correct and wrong answers on rows with an error, then on rows without an error.

    Args:
        predicted: The verdict on each row. A row without a verdict is a wrong answer.
        labels: The earliest wrong step of each row, None for no error.

    Returns:
        (correct with error, wrong with error, correct without error, wrong without error).

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
    """Return the accuracy on rows with an error, the accuracy on rows without one, and their harmonic mean (F1).

    Args:
        error_correct: Numbers of rows with an error that were answered correctly, any shape.
        error_wrong: Numbers of rows with an error that were answered wrongly, same shape.
        fine_correct: Numbers of rows without an error that were answered correctly, same shape.
        fine_wrong: Numbers of rows without an error that were answered wrongly, same shape.

    Returns:
        Three arrays of this shape. An accuracy without rows is NaN; F1 is then NaN too, and 0 where both are 0.
    """
    error, fine = ratios(error_correct, error_correct + error_wrong), ratios(fine_correct, fine_correct + fine_wrong)
    total = error + fine
    return error, fine, np.where(total == 0, 0.0, 2 * error * fine / np.where(total == 0, 1.0, total))


def processbench_f1(predicted: Sequence[Verdict], labels: Sequence[int | None]) -> ProcessBenchScore:
    """Return the scores of one subset of ProcessBench; the main number of the benchmark is the mean F1 of its subsets.

    Source: ProcessBench (arXiv 2412.06559).

    Args:
        predicted: The verdict on each row. A row without a verdict is a wrong answer.
        labels: The earliest wrong step of each row, None for no error (the data set writes -1).

    Returns:
        The scores.

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
    """Return the rate of exact steps among the verdicts that name a step on a row with an error.

    Args:
        predicted: The verdict on each row; those without a step do not count.
        labels: The earliest wrong step of each row, None for no error.

    Returns:
        A rate; NaN where no verdict names a step on a row with an error, as with a judge that answers yes or no.

    Raises:
        ValueError: If the lengths differ or a label is negative.
    """
    distances = step_distances(predicted, labels)
    return ratio(distances[0], distances.total())


def step_distances(predicted: Sequence[Verdict], labels: Sequence[int | None]) -> Counter[int]:
    """Return how far the named steps are from the first wrong one, on rows with an error.

    Args:
        predicted: The verdict on each row; those without a step do not count.
        labels: The earliest wrong step of each row, None for no error.

    Returns:
        Number of verdicts by named step minus first wrong step; 0 is exact, a negative distance is too early.

    Raises:
        ValueError: If the lengths differ or a label is negative.
    """
    _check_labels(predicted, labels)
    pairs = zip(predicted, labels, strict=True)
    return Counter(v.error_step - label for v, label in pairs if label is not None and v.error_step is not None)


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
    """Return Cohen's kappa = (p_o - p_e) / (1 - p_e), the agreement of two raters beyond chance. Source: Cohen 1960.

    p_o is the rate of equal labels; p_e is the rate of equal labels by chance, given how often each rater says True.

    Args:
        first: Labels of one rater.
        second: Labels of the other rater, in the same order.

    Returns:
        1 for full agreement, 0 for agreement by chance, negative below that. NaN without labels, and where p_e = 1,
        since both raters then gave one and the same label throughout.

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
    """Raise ValueError if the lengths differ."""
    if len(predicted) != len(truth):
        raise ValueError(f"one prediction is needed for each row; got {len(predicted)} for {len(truth)} rows")


def _check_labels(predicted: Sequence[Verdict], labels: Sequence[int | None]) -> None:
    """Raise ValueError if the lengths differ or a label is negative."""
    _check_same_length(predicted, labels)
    if any(label is not None and label < 0 for label in labels):
        raise ValueError("labels must be step indices from 0, or None for no error; turn the data set's -1 into None")
