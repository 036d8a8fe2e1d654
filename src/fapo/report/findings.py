"""The findings of a page in words: the comparison, its result, and remarks on numbers that startle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from fapo.evaluation.intervals import Interval, decimal
from fapo.report.run_labels import group_runs
from fapo.report.summary import Row, set_title, show
from fapo.training.run_reader import Run, Series

MIN_FALL = 0.2
"""Fall of the judge's F1 during a run that is remarked on."""
MIN_EXCESS = 0.2
"""Excess of the judged FP ratio over the true one that is remarked on."""
MIN_UNSCORED = 0.1
"""Rate of unscored rollouts that is remarked on."""
MIN_FLAWED_FRACTION = 0.5
"""Fraction of the positive advantage for flawed positives, at the start, that is remarked on."""


def findings(runs: Sequence[Run], rows: Sequence[Row], intervals: Mapping[Row, Interval]) -> list[str]:
    """Return what was compared, and what came out, in two sentences.

    Args:
        runs: Runs of policies and of judges.
        rows: Their summary.
        intervals: 95 % intervals of its last values.

    Returns:
        Sentences; none for runs without a measurement.
    """
    if not rows:
        return []
    compared = [f"{label} ({_extent(group)})" for label, group in group_runs(runs).items()]
    first = f"{'Compared' if len(compared) > 1 else 'Shown'}: {'; '.join(compared)}."
    return [first, *_outcome(rows, intervals)]


def _extent(group: Sequence[Run]) -> str:
    """Return the number of runs and steps of a label."""
    steps = max(run.last_step for run in group)
    return f"{len(group)} runs, {steps} steps" if len(group) > 1 else f"{steps} steps"


def _outcome(rows: Sequence[Row], intervals: Mapping[Row, Interval]) -> Iterator[str]:
    """Yield the sentence about the last values of accuracy and FP ratio, or of F1, on the first set."""
    names = [row.metric.name for row in rows]
    ratio = "true_fp_ratio" if "true_fp_ratio" in names else "fp_ratio"
    parts, overlapping = [], []
    for name in ("accuracy", ratio) if "accuracy" in names else ("f1",):
        of_metric = [row for row in rows if row.metric.name == name]
        mine = [row for row in of_metric if row.split == of_metric[0].split]
        if not mine:
            continue
        unit = mine[0].metric.unit
        ends = ", ".join(f"{row.label} {show(row.end, unit)} (from {show(row.start, unit)})" for row in mine)
        title = mine[0].metric.title.replace(", of", " of")
        parts.append(f"{title} on {set_title(mine[0].split)} problems: {ends}")
        known = [intervals[row] for row in mine if row in intervals]
        if len(mine) > 1 and len(known) == len(mine) and max(low for low, _ in known) <= min(high for _, high in known):
            overlapping.append(mine[0].metric.title)
    if not parts:
        return
    doubt = f" The 95 % intervals of {' and of '.join(overlapping)} overlap." if overlapping else ""
    yield f"{'; '.join(parts)[0].upper()}{'; '.join(parts)[1:]}.{doubt}"


def remarks(runs: Sequence[Run], rows: Sequence[Row]) -> list[str]:
    """Return a sentence for each number that looks wrong to a reader and has a known cause.

    Args:
        runs: Runs of policies and of judges.
        rows: Their summary.

    Returns:
        Sentences, each with its numbers.
    """
    return [
        *_different_ends(runs),
        *_switched(runs),
        *_flaws_reinforced(runs),
        *_rare_flaws(runs),
        *_judge_out_of_its_depth(rows),
        *_unscored(runs),
    ]


def _different_ends(runs: Sequence[Run]) -> Iterator[str]:
    """Yield a remark on each label with runs that have come to different steps."""
    for label, group in group_runs(runs).items():
        if len({run.last_step for run in group}) > 1:
            ends = ", ".join(str(run.last_step) for run in group)
            yield (
                f"{label}: the runs have come to different steps ({ends}). Their last values, with means and "
                "intervals, are those of different steps."
            )


def _switched(runs: Sequence[Run]) -> Iterator[str]:
    """Yield a remark on each run in which the second judge of the audit has taken the place of the first one."""
    for run in runs:
        switched, j = run.series("audit/switched", "train"), run.series("audit/youden_j", "train")
        if first := next((step for step, value in zip(switched.steps, switched.values, strict=True) if value), None):
            yield (
                f"{run.name}: From step {first:g} on, the verdicts are those of the second judge, because the audit "
                f"measured a Youden's J of {decimal(j.values[-1])} of the first one. Numbers that depend on verdicts "
                "do not compare across this step."
            )


def _flaws_reinforced(runs: Sequence[Run]) -> Iterator[str]:
    """Yield a remark on each FAPO run that at its start reinforces mostly solutions that its judge has flagged."""
    for run in runs:
        fractions = run.series("advantage/flawed_fraction", "train").smoothed()
        has_penalty = run.table("reward").get("kind") == "fapo"
        if has_penalty and fractions and fractions.values[0] >= MIN_FLAWED_FRACTION:
            yield (
                f"{run.name}: at the start {show(fractions.values[0], 'rate')} of the positive advantage is that of "
                "flawed positives, so that the updates reinforce mostly flawed reasoning. With reward.penalty=2 they "
                "count as failures, and none of it is left; use it only if the judge is good and flags answers "
                "without reasoning (docs/concepts.md, which penalty)."
            )


def _rare_flaws(runs: Sequence[Run]) -> Iterator[str]:
    """Yield a remark on each run with an F1 of the judge that falls together with the flawed positives."""
    for run in runs:
        f1, true = run.series("judge/f1", "train").smoothed(), run.series("rollout/true_fp_ratio", "train").smoothed()
        if f1 and true and f1.values[0] - f1.values[-1] >= MIN_FALL and true.values[-1] < true.values[0]:
            fall, flaws = _change(f1), _change(true)
            yield (
                f"{run.name}: F1 of the judge falls {fall}, while flawed positives fall {flaws} of the correct "
                "rollouts. The rarer they are, the more a few wrong flags lower F1; the judge need not have become "
                "worse. Compare its F1 on a fixed set."
            )


def _change(series: Series) -> str:
    """Return the first and the last value of a rate as text."""
    return f"from {show(series.values[0], 'rate')} to {show(series.values[-1], 'rate')}"


def _judge_out_of_its_depth(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a remark on each set on which the judge flags far more than the oracle."""
    true = {(row.label, row.split): row.end for row in rows if row.metric.name == "true_fp_ratio"}
    for row in rows:
        truth = true.get((row.label, row.split))
        if row.metric.name == "fp_ratio" and truth is not None and row.end - truth >= MIN_EXCESS:
            yield (
                f"{row.label}, {set_title(row.split)}: the judge flags {show(row.end, 'rate')} of the correct answers, "
                f"and the oracle {show(truth, 'rate')}. The judge is out of its depth on this set, and its FP ratio "
                "there says little about the policy."
            )


def _unscored(runs: Sequence[Run]) -> Iterator[str]:
    """Yield a remark on each run with many unscored rollouts at the end."""
    for run in runs:
        rates = run.series("rollout/unscored_rate", "train").smoothed()
        if rates and rates.values[-1] >= MIN_UNSCORED:
            yield (
                f"{run.name}: {show(rates.values[-1], 'rate')} of the rollouts are unscored at the end, because the "
                "judge gave no verdict on them. They have no part in the update."
            )
