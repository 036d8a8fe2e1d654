"""What a policy and a judge achieve, as numbers. Pure functions; every rate is a fraction in [0, 1].

Empty denominators: a rate of rows that the data does not have is NaN (accuracy of no problems, recall without flawed
rows); a rate that is empty because of what the judge said is 0 (precision when nothing was flagged).
Verdicts that are not ok never count as an answer, right or wrong by luck.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from fapo.types import Verdict

Label = TypeVar("Label", bound=Hashable)

# --- The policy ------------------------------------------------------------------------------------------------------


def wilson_interval(k: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a share seen as `k` of `n`: (low, high) in [0, 1]; (0, 1) for n = 0.

    centre = (k + z^2/2) / (n + z^2), half width = z sqrt(k (n - k) / n + z^2/4) / (n + z^2), z the normal quantile of
    (1 + level) / 2. With an effective sample size k and n are fractions. Raises ValueError unless 0 <= k <= n and
    0 < level < 1. Source: Wilson 1927.
    """
    if not 0 <= k <= n:
        raise ValueError(f"k must lie between 0 and n={n}; got {k}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, for example 0.95; got {level}")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = (k + z**2 / 2) / (n + z**2)
    half_width = z * math.sqrt(k * (n - k) / n + z**2 / 4) / (n + z**2)
    return (0.0 if k == 0 else max(0.0, centre - half_width)), (1.0 if k == n else min(1.0, centre + half_width))


def ratio_interval(
    numerators: npt.ArrayLike, denominators: npt.ArrayLike, *, share: bool = True, level: float = 0.95
) -> tuple[float, float]:
    """Interval of sum(y) / sum(x), y and x summed within each of n questions, which are what was drawn at random.

    The variance of the ratio r is n / (n - 1) sum((y - r x)^2) / sum(x)^2. A `share` gets Wilson's interval for the
    effective sample size r (1 - r) / variance, at most sum(x), and sum(x) where all questions agree; anything else
    r -+ z sqrt(variance). NaN, NaN for fewer than two questions or sum(x) = 0. Raises ValueError unless both are
    [num_questions]. Source: the linearised ratio estimator of cluster samples.
    """
    y, x = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if y.shape != x.shape or y.ndim != 1:
        raise ValueError(f"numerators and denominators must be [num_questions]; got {y.shape} and {x.shape}")
    if len(y) < 2 or x.sum() == 0:
        return math.nan, math.nan
    ratio = float(y.sum() / x.sum())
    variance = float(len(y) / (len(y) - 1) * ((y - ratio * x) ** 2).sum() / x.sum() ** 2)
    if share:
        size = float(x.sum()) if variance == 0 else min(float(x.sum()), ratio * (1 - ratio) / variance)
        return wilson_interval(ratio * size, size, level)
    half_width = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(variance)
    return ratio - half_width, ratio + half_width


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of a mean over few seeds: mean -+ t s / sqrt(n), t of Student with n - 1 degrees of freedom.

    NaN, NaN for fewer than two values.
    """
    if len(values) < 2:
        return math.nan, math.nan
    half_width = _student_95(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return fmean(values) - half_width, fmean(values) + half_width


def avg_at_k(correct: npt.ArrayLike) -> float:
    """Share of right answers over all problems and all k samples of each; `correct`: [num_problems, k].

    NaN without problems. Raises ValueError for another number of dimensions. Source: the paper's evaluation (avg@32).
    """
    table = np.asarray(correct, dtype=bool)
    if table.ndim != 2:
        raise ValueError(f"correct must be [num_problems, k]; reshape the array, its shape is {table.shape}")
    return _share(int(table.sum()), table.size)


def pass_at_k(num_correct: int, n: int, k: int) -> float:
    """Chance that k of n samples, drawn without replacement, hold a right one: 1 - C(n - c, k) / C(n, k).

    The unbiased estimate for one problem; average it over problems. Raises ValueError unless 1 <= k <= n and
    0 <= num_correct <= n. Source: Chen et al. 2021 (pass@k).
    """
    if not 1 <= k <= n:
        raise ValueError(f"k must lie between 1 and the number of samples n={n}; got {k}")
    if not 0 <= num_correct <= n:
        raise ValueError(f"num_correct must lie between 0 and n={n}; got {num_correct}")
    return 1.0 - math.comb(n - num_correct, k) / math.comb(n, k)


def majority_vote(labels: Sequence[Label]) -> Label:
    """The most frequent label; among equals the one seen first. Raises ValueError when there is none."""
    if not labels:
        raise ValueError("a vote needs at least one label")
    return Counter(labels).most_common(1)[0][0]


def majority_at_k(answers: Sequence[Sequence[Label]], references: Sequence[Label]) -> float:
    """Share of problems whose majority vote over k answers equals the reference; NaN without problems.

    Answers are compared by ==: bring equivalent ones to one form first. Raises ValueError when the lengths differ or
    a problem has no answers.
    """
    _check_same_length(answers, references)
    return _share(
        sum(majority_vote(group) == reference for group, reference in zip(answers, references, strict=True)),
        len(references),
    )


def fp_ratio(num_flawed: int, num_correct: int) -> float:
    """Flawed positives / rollouts with a right answer; NaN when none is right.

    `num_correct` counts right answers that have a verdict. Raises ValueError unless 0 <= num_flawed <= num_correct.
    """
    _check_flawed(num_flawed, num_correct)
    return _share(num_flawed, num_correct)


def reliable_accuracy(num_flawed: int, num_correct: int, num_rollouts: int) -> float:
    """(right answers - flawed positives) / rollouts: the share right for the right reason; NaN without rollouts.

    Raises ValueError unless 0 <= num_flawed <= num_correct <= num_rollouts.
    """
    _check_flawed(num_flawed, num_correct)
    if num_correct > num_rollouts:
        raise ValueError(f"num_correct={num_correct} is more than num_rollouts={num_rollouts}")
    return _share(num_correct - num_flawed, num_rollouts)


# --- The judge -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PRF:
    """How well a judge finds flawed positives among rollouts with a right answer."""

    n: int
    """Rows judged."""
    num_flawed: int
    """Rows that are flawed positives in truth."""
    precision: float
    """tp / (tp + fp); 0 when nothing was flagged."""
    recall: float
    """tp / (tp + fn); NaN without flawed rows."""
    f1: float
    """2 tp / (2 tp + fp + fn); NaN without flawed rows."""
    invalid_share: float
    """Rows without a verdict / rows; NaN without rows."""
    tp: int
    """Flawed rows flagged."""
    fp: int
    """Fine rows flagged, and (invalid = "wrong") fine rows without a verdict."""
    fn: int
    """Flawed rows not flagged, and (invalid = "wrong") flawed rows without a verdict."""


def flawed_positive_prf(
    predicted: Sequence[bool | None], truth: Sequence[bool], invalid: Literal["wrong", "flagged"] = "wrong"
) -> PRF:
    """Precision, recall and F1 of "flagged"; `predicted` is `Verdict.flawed`, None where there is no verdict.

    invalid = "wrong": no verdict is a mistake on either side, a miss on a flawed row and a false alarm on a fine one.
    invalid = "flagged": no verdict counts as flagged, which lifts recall; only to compare with numbers published that
    way. Raises ValueError when the lengths differ. Source: FlawedPositiveBench.
    """
    _check_same_length(predicted, truth)
    if invalid not in ("wrong", "flagged"):
        raise ValueError(f"invalid must be 'wrong' or 'flagged'; got {invalid!r}")
    rows = Counter((None if p is None else bool(p), bool(t)) for p, t in zip(predicted, truth, strict=True))
    num_flawed = rows[True, True] + rows[False, True] + rows[None, True]
    tp = rows[True, True] + (rows[None, True] if invalid == "flagged" else 0)
    fp = rows[True, False] + rows[None, False]
    fn = num_flawed - tp
    return PRF(
        n=len(truth),
        num_flawed=num_flawed,
        precision=tp / (tp + fp) if tp + fp else 0.0,
        recall=_share(tp, num_flawed),
        f1=2 * tp / (2 * tp + fp + fn) if num_flawed else math.nan,
        invalid_share=_share(rows[None, True] + rows[None, False], len(truth)),
        tp=tp,
        fp=fp,
        fn=fn,
    )


@dataclass(frozen=True)
class ProcessBenchScore:
    """How well a judge finds the earliest wrong step, on one subset of ProcessBench."""

    n: int
    """Rows judged."""
    num_error: int
    """Rows with a wrong step in truth."""
    error_acc: float
    """Of the rows with a wrong step, the share whose earliest one was named exactly; NaN without such rows."""
    correct_acc: float
    """Of the rows without, the share in which no error was found; NaN without such rows."""
    f1: float
    """Harmonic mean of the two; 0 when both are 0, NaN when either is NaN."""
    invalid_share: float
    """Rows without a verdict / rows; NaN without rows."""


def processbench_f1(predicted: Sequence[Verdict], labels: Sequence[int | None]) -> ProcessBenchScore:
    """ProcessBench's scoring of one subset; the benchmark's headline is the mean of its subsets' f1.

    `labels` hold the earliest wrong step, None for no error (the data set writes -1). A row without a verdict is wrong.
    Raises ValueError when the lengths differ or a label is negative. Source: ProcessBench (Zheng et al. 2024).
    """
    _check_labels(predicted, labels)
    num_error = sum(label is not None for label in labels)
    hits = Counter(
        label is not None
        for verdict, label in zip(predicted, labels, strict=True)
        if verdict.status == "ok" and verdict.error_step == label
    )
    error_acc = _share(hits[True], num_error)
    correct_acc = _share(hits[False], len(labels) - num_error)
    total = error_acc + correct_acc
    return ProcessBenchScore(
        n=len(labels),
        num_error=num_error,
        error_acc=error_acc,
        correct_acc=correct_acc,
        f1=0.0 if total == 0 else 2 * error_acc * correct_acc / total,
        invalid_share=_share(sum(verdict.status != "ok" for verdict in predicted), len(labels)),
    )


def location_accuracy(predicted: Sequence[Verdict], labels: Sequence[int | None]) -> float:
    """Of the rows with an error that were flagged, the share whose earliest wrong step was named exactly.

    0 when no row with an error was flagged, NaN without such rows. Labels and errors as in `processbench_f1`.
    """
    _check_labels(predicted, labels)
    if all(label is None for label in labels):
        return math.nan
    found = [
        verdict.error_step == label
        for verdict, label in zip(predicted, labels, strict=True)
        if label is not None and verdict.flawed
    ]
    return sum(found) / len(found) if found else 0.0


# --- Checks ----------------------------------------------------------------------------------------------------------


def cohen_kappa(first: Sequence[bool], second: Sequence[bool]) -> float:
    """kappa = (p_o - p_e) / (1 - p_e): agreement of two raters beyond chance; 1 full, 0 chance, below 0 less.

    p_o is the share of equal labels, p_e what two raters with these shares of True would have by chance. NaN where
    p_e = 1 (both gave one and the same label throughout) and without labels. Raises ValueError for lists of different
    lengths. Source: Cohen 1960.
    """
    _check_same_length(first, second)
    if not first:
        return math.nan
    n = len(first)
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    a, b = sum(first), sum(second)
    expected = (a * b + (n - a) * (n - b)) / n**2
    return math.nan if expected == 1 else (observed - expected) / (1 - expected)


def _student_95(df: int) -> float:
    """0.975 quantile of Student's t: exact for few degrees of freedom, then by the expansion in 1 / df."""
    exact = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)
    return exact[df - 1] if df <= len(exact) else 1.95996 + 2.37227 / df + 2.82250 / df**2 + 2.55585 / df**3


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _check_same_length(predicted: Sequence[object], truth: Sequence[object]) -> None:
    if len(predicted) != len(truth):
        raise ValueError(f"one prediction is needed for each row; got {len(predicted)} for {len(truth)} rows")


def _check_labels(predicted: Sequence[Verdict], labels: Sequence[int | None]) -> None:
    _check_same_length(predicted, labels)
    if any(label is not None and label < 0 for label in labels):
        raise ValueError("labels must be step indices from 0, or None for no error; turn the data set's -1 into None")


def _check_flawed(num_flawed: int, num_correct: int) -> None:
    if not 0 <= num_flawed <= num_correct:
        raise ValueError(f"num_flawed must lie between 0 and num_correct={num_correct}; got {num_flawed}")
