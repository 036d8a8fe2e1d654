"""95 % intervals for the final numbers: over seeds where there are several, otherwise over the questions of one run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fapo.evaluation.intervals import Interval, mean_interval, ratio_interval
from fapo.judge.genrm import named_step
from fapo.judge.quality import confusion, prf_ratios
from fapo.report.labels import grouped
from fapo.report.summary import Row, measured
from fapo.training.run_reader import Run

Parts = tuple[float, float]
"""What one rollout adds to the numerator and to the denominator of a metric."""


def intervals(runs: Sequence[Run], rows: Sequence[Row]) -> dict[Row, Interval]:
    """Row of the summary -> interval of its last value; without those that cannot be known."""
    groups, found = grouped(runs), {}
    ends: dict[str, dict[Row, float]] = {}
    for row in rows:
        group = [series for run in groups[row.label] if (series := measured(run, row.metric.name, row.split))]
        if len(group) > 1:
            found[row] = mean_interval([series.values[-1] for series in group])
        elif row.split:
            ends.setdefault(row.label, {})[row] = group[0].steps[-1]
    for label, wanted in ends.items():
        (run,) = (run for run in groups[label] if any(measured(run, row.metric.name, row.split) for row in wanted))
        found |= _over_questions(run, wanted)
    return {row: interval for row, interval in found.items() if not math.isnan(interval[0])}


def _over_questions(run: Run, wanted: Mapping[Row, float]) -> dict[Row, Interval]:
    """Intervals of the metrics of one run, each at its step, from the rollouts of that validation."""
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
        row: ratio_interval(*zip(*questions.values(), strict=True), is_rate=row.metric.unit == "share")
        for row, questions in sums.items()
        if questions
    }


# --- parts of the metrics of fapo.training.step_metrics, rollout by rollout ---------------------------------------------------------


def _truth(row: Mapping[str, Any]) -> bool | None:
    """Whether the oracle (for a critique: the label) says flawed; None: it says nothing."""
    truth = row.get("truth")
    return truth.get("error_step") is not None if isinstance(truth, Mapping) else None


def _reliable(row: Mapping[str, Any]) -> Parts:
    return bool(row.get("correct")) and _truth(row) is False, 1


def _true_fp(row: Mapping[str, Any]) -> Parts:
    known = bool(row.get("correct")) and _truth(row) is not None
    return known and bool(_truth(row)), known


def _judged_fp(row: Mapping[str, Any]) -> Parts:
    judged = bool(row.get("correct")) and isinstance(row.get("flawed"), bool)
    return judged and row["flawed"], judged


def _confusion(row: Mapping[str, Any]) -> tuple[bool, bool, bool]:
    flagged = row.get("flawed")
    return confusion(flagged if isinstance(flagged, bool) else None, bool(_truth(row)))


def _location(row: Mapping[str, Any]) -> Parts:
    """Return (named exactly, named) for the step in a correctly flagged critique."""
    true_positive, _, _ = _confusion(row)
    step = named_step(row) if true_positive else None
    return step is not None and step == (row.get("truth") or {}).get("error_step"), step is not None


def _prf(name: str) -> Callable[[Mapping[str, Any]], Parts]:
    return lambda row: prf_ratios(*_confusion(row))[name]


POLICY_PARTS: dict[str, Callable[[Mapping[str, Any]], Parts]] = {
    "accuracy": lambda row: (bool(row.get("correct")), 1),
    "reliable_accuracy": _reliable,
    "true_fp_ratio": _true_fp,
    "fp_ratio": _judged_fp,
    "length": lambda row: (row.get("num_tokens") or 0, 1),
}
GENRM_PARTS: dict[str, Callable[[Mapping[str, Any]], Parts]] = {
    **{name: _prf(name) for name in ("precision", "recall", "f1")},
    "location": _location,
    "invalid_share": lambda row: (not isinstance(row.get("flawed"), bool), 1),
    "tokens": lambda row: (row.get("num_tokens") or 0, 1),
}
