"""The threshold of step scores: chosen on one half of the problems, so that the other half can measure it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fapo.data.problems import sampling_key
from fapo.errors import DataError
from fapo.judge.prm import first_below
from fapo.judge.quality import flawed_positive_prf, processbench_f1
from fapo.types import LabelledSolution, Verdict

THRESHOLDS = tuple(percent / 100 for percent in range(1, 100))
"""Thresholds that are compared."""


def with_threshold(verdict: Verdict, threshold: float) -> Verdict:
    """Return a verdict with the step that its scores name at a threshold; one without scores as it is."""
    if not verdict.scores:
        return verdict
    step = first_below(verdict.scores, threshold)
    return replace(verdict, flawed=step is not None, error_step=step)


def halves(rows: Sequence[LabelledSolution]) -> tuple[list[int], list[int]]:
    """Return the indices of the rows of two halves of the problems, a random choice that is the same each time.

    Solutions of one problem are alike, so all of them are in one half. The smallest id of its rows stands for a
    problem. Where each problem has one row, these are two halves of the rows.
    """
    ids: dict[str, str] = {}
    for row in rows:
        ids[row.problem.text] = min(row.problem.id, ids.get(row.problem.text, row.problem.id))
    order = sorted(ids, key=lambda text: sampling_key(ids[text]))
    chosen = set(order[: len(order) // 2])
    first = [index for index, row in enumerate(rows) if row.problem.text in chosen]
    return first, [index for index, row in enumerate(rows) if row.problem.text not in chosen]


def best_threshold(rows: Sequence[LabelledSolution], verdicts: Sequence[Verdict], *, process: bool) -> float:
    """Return the threshold with the largest F1 of a benchmark; of equal ones the one next to 0.5.

    Args:
        rows: Labelled solutions, [num_rows].
        verdicts: Verdicts with scores in the same order, [num_rows].
        process: Whether F1 is that of `process`, where the step must be exact; otherwise it is that of flawed-positive.

    Returns:
        One of `THRESHOLDS`.

    Raises:
        DataError: No verdict has scores, or the rows are all flawed or all correct.
    """
    labels = [row.error_step for row in rows]
    if not any(verdict.scores for verdict in verdicts) or len({label is None for label in labels}) < 2:
        raise DataError(
            f"no threshold can be chosen on {len(rows)} rows: it needs step scores (a prm: judge, or predictions with "
            "scores), and rows with and without an error in one half of the problems"
        )

    def f1(threshold: float) -> float:
        found = [with_threshold(verdict, threshold) for verdict in verdicts]
        if process:
            return processbench_f1(found, labels).f1
        return flawed_positive_prf([verdict.flawed for verdict in found], [label is not None for label in labels]).f1

    return max(THRESHOLDS, key=lambda threshold: (f1(threshold), -abs(threshold - 0.5)))
