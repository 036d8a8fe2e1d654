"""95 % intervals of the final numbers: over seeds if there are several, otherwise over the questions of one run."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fapo.evaluation.intervals import Interval, mean_interval, ratio_interval
from fapo.judge.quality import confusion, prf_ratios
from fapo.report.run_labels import group_runs
from fapo.report.summary import Row, measured
from fapo.training.run_reader import Run

Parts = tuple[float, float]
"""Contributions of one rollout to the numerator and to the denominator of a metric."""


def intervals(runs: Sequence[Run], rows: Sequence[Row]) -> dict[Row, Interval]:
    """Compute the intervals of the last values of a summary.

    Args:
        runs: Runs of policies and of judges.
        rows: Their summary.

    Returns:
        Row -> interval in the unit of its metric; rows without a defined interval are left out.
    """
    groups, found = group_runs(runs), {}
    ends: dict[Path, tuple[Run, dict[Row, float]]] = {}
    for row in rows:
        group = [(run, series) for run in groups[row.label] if (series := measured(run, row.metric.name, row.split))]
        if len(group) > 1:
            found[row] = mean_interval([series.values[-1] for _, series in group])
        elif row.split:
            ((run, series),) = group
            ends.setdefault(run.path, (run, {}))[1][row] = series.steps[-1]
    for run, wanted in ends.values():
        found |= _over_questions(run, wanted)
    return {row: interval for row, interval in found.items() if not math.isnan(interval[0])}


def _over_questions(run: Run, wanted: Mapping[Row, float]) -> dict[Row, Interval]:
    """Return the intervals of the metrics of one run, each from the rollouts of the validation at its step."""
    parts = GENRM_PARTS if run.genrm else POLICY_PARTS
    sums: dict[Row, dict[str, list[float]]] = {row: {} for row in wanted if row.metric.name in parts}
    for rollout in run.rollouts():
        for row, questions in sums.items():
            if rollout.get("split") == row.split and rollout.get("step") == wanted[row]:
                part, whole = parts[row.metric.name](rollout)
                question = questions.setdefault(str(rollout.get("problem_id")), [0.0, 0.0])
                question[0] += part
                question[1] += whole
    return {
        row: ratio_interval(*zip(*questions.values(), strict=True), is_rate=row.metric.unit == "rate")
        for row, questions in sums.items()
        if questions
    }


def _truth(row: Mapping[str, Any]) -> bool | None:
    """Return whether a rollout is flawed by the oracle, or a critique by its label; None if that is unknown."""
    truth = row.get("truth")
    return truth.get("error_step") is not None if isinstance(truth, Mapping) else None


def _reliable(row: Mapping[str, Any]) -> Parts:
    """Return (correct without a wrong step, 1)."""
    return bool(row.get("correct")) and _truth(row) is False, 1


def _true_fp(row: Mapping[str, Any]) -> Parts:
    """Return (flawed by the oracle, known to the oracle) for a correct rollout."""
    known = bool(row.get("correct")) and _truth(row) is not None
    return known and bool(_truth(row)), known


def _judged_fp(row: Mapping[str, Any]) -> Parts:
    """Return (flagged, judged) for a correct rollout."""
    judged = bool(row.get("correct")) and isinstance(row.get("flawed"), bool)
    return judged and row["flawed"], judged


def _of_correct_answers(part: Callable[[Mapping[str, Any]], Parts]) -> Callable[[Mapping[str, Any]], Parts]:
    """Return the function that leaves out critiques of solutions with a wrong answer."""
    return lambda row: (0, 0) if (row.get("truth") or {}).get("answer_correct") is False else part(row)


def _exact(row: Mapping[str, Any], *, flawed: bool) -> Parts:
    """Return (named exactly, 1) for a critique of a solution with or without an error, by its label."""
    exact = row.get("flawed") is flawed and row.get("error_step") == (row.get("truth") or {}).get("error_step")
    return (exact, 1) if _truth(row) is flawed else (0, 0)


def _confusion(row: Mapping[str, Any]) -> tuple[bool, bool, bool]:
    """Return whether a critique is a true positive, a false positive and a false negative."""
    flagged = row.get("flawed")
    return confusion(flagged if isinstance(flagged, bool) else None, bool(_truth(row)))


def _location(row: Mapping[str, Any]) -> Parts:
    """Return (named exactly, named) for the step in a correctly flagged critique."""
    true_positive, _, _ = _confusion(row)
    step = row.get("error_step") if true_positive else None
    return step is not None and step == (row.get("truth") or {}).get("error_step"), step is not None


def _prf(name: str) -> Callable[[Mapping[str, Any]], Parts]:
    """Return the function that gives the parts of precision, recall or F1."""
    return lambda row: prf_ratios(*_confusion(row))[name]


POLICY_PARTS: dict[str, Callable[[Mapping[str, Any]], Parts]] = {
    "accuracy": lambda row: (bool(row.get("correct")), 1),
    "reliable_accuracy": _reliable,
    "true_fp_ratio": _true_fp,
    "fp_ratio": _judged_fp,
    "length": lambda row: (row.get("num_tokens") or 0, 1),
}
"""Metric of a policy -> function that returns the parts of one rollout. They sum to those of `step_metrics`."""
GENRM_PARTS: dict[str, Callable[[Mapping[str, Any]], Parts]] = {
    **{name: _of_correct_answers(_prf(name)) for name in ("precision", "recall", "f1")},
    "location": _of_correct_answers(_location),
    "invalid_rate": _of_correct_answers(lambda row: (not isinstance(row.get("flawed"), bool), 1)),
    "process_error_accuracy": functools.partial(_exact, flawed=True),
    "process_correct_accuracy": functools.partial(_exact, flawed=False),
    "tokens": lambda row: (row.get("num_tokens") or 0, 1),
}
"""Metric of a GenRM in training -> function that returns the parts of one critique."""
