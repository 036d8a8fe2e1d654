"""The thresholds of a cascade: chosen on one half of the problems for a bound on its errors, measured on the other.

The bound holds for each class: of the flawed solutions, the cheap judge clears at most this rate on its own, and of the
correct ones it flags at most this rate. So the recall of the cascade is at most this much below that of the strong
judge, and its false positive rate at most this much above, whatever the rate of flawed solutions is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fapo.errors import DataError
from fapo.evaluation.intervals import Estimate, grouped_rate_estimate
from fapo.evaluation.judge_benchmarks.compare import compare_judges
from fapo.evaluation.judge_benchmarks.output import Context
from fapo.evaluation.judge_benchmarks.predictions import MISSING, read_predictions, verdicts_of
from fapo.evaluation.judge_benchmarks.rows import Rows, load_rows
from fapo.evaluation.judge_benchmarks.settings import CascadeSettings
from fapo.evaluation.judge_benchmarks.threshold import halves
from fapo.judge.cascade import all_tokens, combined, flaw_score, is_sure
from fapo.types import Verdict

MAX_ERRORS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""Bounds that are shown beside the wanted one."""
CHEAP, STRONG = "cheap judge alone", "strong judge alone"
"""Names of the judges in the table."""


@dataclass(frozen=True)
class CascadePoint:
    """One way of judging the measured rows: a judge alone, or a cascade with the thresholds of one bound."""

    max_error: float | None
    """Bound for which the thresholds were chosen; None for a judge alone."""
    thresholds: tuple[float, float] | None
    """Scores of a flaw between which the strong judge is asked; None for a judge alone."""
    strong_rate: Estimate
    """Rows that the strong judge reads / rows."""
    cleared: Estimate
    """Flawed rows that the cheap judge clears on its own / flawed rows."""
    flagged: Estimate
    """Correct rows that the cheap judge flags on its own / correct rows."""
    f1: Estimate | None
    """F1 of "flawed"; None without predictions of the strong judge."""
    youden_j: Estimate | None
    """Youden's J; None without predictions of the strong judge."""
    difference: Estimate | None
    """F1 minus that of the strong judge, with a paired interval; None without predictions of the strong judge."""
    cheap_tokens: float
    """Tokens of the cheap judge's critiques / rows; 0 for a process reward model, which writes none."""
    strong_tokens: float
    """Tokens of the strong judge's critiques / rows."""


@dataclass(frozen=True)
class CascadeChoice:
    """The thresholds that were chosen, and what they and others would have done."""

    thresholds: tuple[float, float]
    """Thresholds for the wanted bound."""
    max_error: float
    """Wanted bound."""
    num_chosen: int
    """Number of rows on which the thresholds were chosen."""
    num_measured: int
    """Number of other rows, on which all points were measured."""
    num_problems: int
    """Number of problems among these other rows."""
    smallest_bound: float
    """Smallest bound that is not held by asking the strong judge about every row of a class."""
    points: dict[str, CascadePoint]
    """Points by name: each bound, and each judge alone."""


def choose_thresholds(
    scores: Sequence[float | None],
    flawed: Sequence[bool],
    problems: Sequence[Hashable],
    max_error: float,
    cut: float = 0.5,
) -> tuple[float, float]:
    """Choose the thresholds of a cascade for a bound on the errors of its cheap judge.

    low = min(s_(k+1) of the n flawed rows in rising order, cut), k = floor(e (n + m)) - m; low = 0 if k < 0. A problem
    has at most m of the n rows. high is the same from above, on the correct rows. If a new problem with at most m
    flawed rows is exchangeable with these problems, the expected number of its flawed rows with a score below low is
    at most e times the expected number of its flawed rows; at most e n of the n rows have such a score. For m = 1 a
    new flawed row has a score below low with a probability of at most e. Source: conformal prediction by class (Vovk
    2012), and conformal risk control (Angelopoulos et al. 2022) with the loss of a problem, errors - e rows.

    Args:
        scores: Scores of a flaw by the cheap judge in [0, 1], None without a verdict, [num_rows].
        flawed: Labels, [num_rows].
        problems: Key of the problem of each row, [num_rows].
        max_error: Bound e, in (0, 1).
        cut: Score above which the cheap judge flags.

    Returns:
        (low, high), with 0 <= low <= cut <= high <= 1. They move towards the cut as the bound rises.

    Raises:
        ValueError: If a score is outside of [0, 1].
    """
    if any(score is not None and not 0 <= score <= 1 for score in scores):
        raise ValueError("a score of a flaw must be between 0 and 1")
    rows = list(zip(scores, flawed, problems, strict=True))
    flawed_rows = [(math.inf if score is None else score, key) for score, is_flawed, key in rows if is_flawed]
    correct_rows = [(math.inf if score is None else -score, key) for score, is_flawed, key in rows if not is_flawed]
    low, high = _bound(flawed_rows, max_error, 0.0), -_bound(correct_rows, max_error, -1.0)
    return min(low, cut), max(high, cut)


def _bound(rows: Sequence[tuple[float, Hashable]], rate: float, lowest: float) -> float:
    """Return s_(k+1) of n scores with problems, k = floor(rate (n + m)) - m; `lowest` if k is below 0."""
    most = _most_rows([problem for _, problem in rows])
    k = math.floor(rate * (len(rows) + most)) - most
    return sorted(score for score, _ in rows)[k] if k >= 0 else lowest


def _most_rows(problems: Sequence[Hashable]) -> int:
    """Return the largest number m of rows of one problem; 1 without rows."""
    return max(Counter(problems).values(), default=1)


def choose(settings: CascadeSettings) -> CascadeChoice:
    """Choose thresholds on a random half of the problems, and measure them on the other half.

    Args:
        settings: Rows, predictions and bound.

    Returns:
        The choice.

    Raises:
        DataError: The data or the predictions cannot be read, the scores of the cheap judge are not between 0 and 1, or
            the rows have only one class.
    """
    rows = load_rows("flawed-positive", settings.data, settings.limit)
    cheap = _verdicts(settings.cheap, rows, settings.threshold)
    strong = _verdicts(settings.strong, rows, settings.threshold) if settings.strong else cheap
    common = [i for i in range(len(cheap)) if cheap[i] is not MISSING and strong[i] is not MISSING]
    rows = rows.take(common)
    cheap, strong = [cheap[i] for i in common], [strong[i] for i in common]
    by_probability = any(verdict.flag_probability is not None for verdict in cheap)
    scores = [flaw_score(verdict, by_probability) for verdict in cheap]
    labels = [row.error_step is not None for row in rows.counting]
    if any(score is not None and not 0 <= score <= 1 for score in scores):
        raise DataError(f"{settings.cheap}: has step scores outside of 0 to 1; make probabilities of them")
    chosen, measured = halves(rows.counting)
    for half in (chosen, measured):
        if len({labels[i] for i in half}) < 2:
            raise DataError(
                f"no thresholds can be chosen on {len(common)} rows with predictions: each half of the problems needs "
                "flawed and correct ones; give rows of more problems"
            )
    cut = 1 - settings.threshold if any(verdict.scores for verdict in cheap) else 0.5
    problems = [row.problem.text for row in rows.counting]
    known = [scores[i] for i in chosen], [labels[i] for i in chosen], [problems[i] for i in chosen]
    bounds = sorted({*MAX_ERRORS, settings.max_error})
    thresholds = {f"bound {bound:g}": choose_thresholds(*known, bound, cut) for bound in bounds}
    points = _points(
        rows.take(measured),
        [cheap[i] for i in measured],
        [strong[i] for i in measured] if settings.strong else None,
        thresholds,
        by_probability,
    )
    points |= {name: replace(points[name], max_error=bound) for name, bound in zip(thresholds, bounds, strict=True)}
    by_class = [[problems[i] for i in chosen if labels[i] is label] for label in (True, False)]
    smallest = max(_most_rows(of_class) / (len(of_class) + _most_rows(of_class)) for of_class in by_class)
    num_problems = len({problems[i] for i in measured})
    wanted = thresholds[f"bound {settings.max_error:g}"]
    return CascadeChoice(wanted, settings.max_error, len(chosen), len(measured), num_problems, smallest, points)


def _verdicts(file: Path, rows: Rows, threshold: float) -> list[Verdict]:
    """Return the verdicts in a file of predictions, in the order of the rows."""
    return verdicts_of(rows.counting, read_predictions(file, rows.num_steps, threshold=threshold))


def _points(
    rows: Rows,
    cheap: Sequence[Verdict],
    strong: Sequence[Verdict] | None,
    thresholds: dict[str, tuple[float, float]],
    by_probability: bool,
) -> dict[str, CascadePoint]:
    """Return what each judge alone, and the cascade with each pair of thresholds, does on some rows."""
    sure = {CHEAP: [True] * len(cheap)} | {
        name: [is_sure(verdict, limits, by_probability) for verdict in cheap] for name, limits in thresholds.items()
    }
    if strong:
        sure[STRONG] = [False] * len(cheap)
        verdicts = {name: _cascaded(cheap, strong, kept) for name, kept in sure.items() if name != STRONG}
        contexts = [Context((), "", name, "", found) for name, found in [(STRONG, strong), *verdicts.items()]]
        compared = compare_judges("flawed-positive", rows, contexts).judges
    problems = [row.problem.text for row in rows.counting]
    labels = [row.error_step is not None for row in rows.counting]
    out = {}
    for name, kept in sure.items():
        found = compared[name] if strong else None
        asked = [i for i, is_kept in enumerate(kept) if not is_kept]
        is_wrong = [
            is_kept and verdict.flawed is not is_flawed
            for is_kept, verdict, is_flawed in zip(kept, cheap, labels, strict=True)
        ]
        cleared, flagged = (
            grouped_rate_estimate([is_wrong[i] for i in of_class], [problems[i] for i in of_class])
            for of_class in ([i for i, is_flawed in enumerate(labels) if is_flawed is label] for label in (True, False))
        )
        out[name] = CascadePoint(
            max_error=None,
            thresholds=thresholds.get(name),
            strong_rate=grouped_rate_estimate([not is_kept for is_kept in kept], problems),
            cleared=cleared,
            flagged=flagged,
            f1=found.numbers["f1"] if found else None,
            youden_j=found.numbers["youden_j"] if found else None,
            difference=found.differences.get("f1") if found else None,
            cheap_tokens=0.0 if name == STRONG else sum(map(all_tokens, cheap)) / len(cheap),
            strong_tokens=sum(all_tokens(strong[i]) for i in asked) / len(cheap) if strong else 0.0,
        )
    return out


def _cascaded(cheap: Sequence[Verdict], strong: Sequence[Verdict], kept: Sequence[bool]) -> list[Verdict]:
    """Return the verdicts of the cheap judge that are kept, and else those of the strong judge."""
    return [
        verdict if is_kept else combined(verdict, better)
        for verdict, better, is_kept in zip(cheap, strong, kept, strict=True)
    ]
