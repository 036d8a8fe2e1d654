"""Summary of runs: start and end of each metric, and the step at which flawed positives turn negative."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fapo.evaluation.intervals import Interval, percent
from fapo.report.run_labels import group_runs
from fapo.rewards.theory import equivalent_penalty, shift_ratio
from fapo.training.run_reader import WINDOW, Run, Series, read_run

Unit = Literal["rate", "tokens"]


@dataclass(frozen=True)
class Metric:
    """A metric of a validation set."""

    name: str
    """Name in metrics.jsonl, without the name of the set."""
    title: str
    """Name for readers."""
    unit: Unit = "rate"
    """Unit of the values; a rate is shown in percent."""
    better: Literal["higher", "lower", ""] = "higher"
    """Direction of improvement; "" if there is none."""


POLICY = (
    Metric("accuracy", "accuracy"),
    Metric("reliable_accuracy", "right for the right reason"),
    Metric("true_fp_ratio", "true flawed positives, of correct", better="lower"),
    Metric("fp_ratio", "judged flawed positives, of correct", better="lower"),
    Metric("length", "response length", "tokens", ""),
)
"""Metrics of a policy, in the order shown."""
GENRM = (
    Metric("precision", "precision"),
    Metric("recall", "recall"),
    Metric("f1", "F1"),
    Metric("location", "exact location"),
    Metric("invalid_rate", "no valid verdict", better="lower"),
    Metric("process_error_accuracy", "ProcessBench: exact step, of solutions with an error"),
    Metric("process_correct_accuracy", "ProcessBench: no error found, of solutions without one"),
    Metric("process_f1", "ProcessBench: F1"),
    Metric("tokens", "critique length", "tokens", ""),
)
"""Metrics of a GenRM in training, in the order shown."""
_LASTING = WINDOW + 1
"""Number of running means below 0 that make a crossing; a single outlier lowers only WINDOW of them."""
_SETS = {"validation": "in-distribution", "harder": "harder"}


@dataclass(frozen=True)
class Row:
    """A metric of the runs of one label on one validation set."""

    metric: Metric
    """The metric."""
    split: str
    """Name of the validation set; "" for the training rollouts of runs without validation."""
    label: str
    """Label of the runs."""
    start: float
    """First value, as a mean over the runs."""
    end: float
    """Last value, as a mean over the runs."""
    spread: float | None
    """Standard deviation of the last values over the runs; None for a single run."""
    best: bool
    """Whether the last value is better than that of another label and worse than that of none."""

    @property
    def text(self) -> str:
        """Start and end as text, for a table."""
        spread = "" if self.spread is None else f" ± {show(self.spread, self.metric.unit).removesuffix(' %')}"
        return f"{show(self.start, self.metric.unit)} → {show(self.end, self.metric.unit)}{spread}"


@dataclass(frozen=True)
class Crossing:
    """The step at which the mean advantage of flawed positives turns negative: warm-up ends, refinement begins."""

    step: float
    """Training step, interpolated; the first one if the advantage is negative from the start."""
    rho: float | None
    """Fully correct per wrong rollout of the whole batch at this step, by the judge."""
    true_rho: float | None
    """Fully correct per wrong rollout of the whole batch at this step, by the oracle."""
    flawed_rho: float | None = None
    """Rho of the groups with flawed positives, weighted by their number, by the judge; theory is about this rho."""
    true_flawed_rho: float | None = None
    """Rho of the groups with flawed positives, weighted by their number, by the oracle."""

    @property
    def own_rho(self) -> float | None:
        """Rho of the groups with flawed positives, by the judge if there was one, otherwise by the oracle."""
        return self.true_flawed_rho if self.flawed_rho is None else self.flawed_rho


def find_crossing(run: Run) -> Crossing | None:
    """Return the first step at which the running mean of the flawed advantage is negative for _LASTING rows."""
    flawed = advantage(run, "flawed").smoothed()
    values = flawed.values
    for i in range(len(values) - _LASTING + 1):
        if max(values[i : i + _LASTING]) < 0:
            step = flawed.steps[i]
            if i:
                step -= (step - flawed.steps[i - 1]) * values[i] / (values[i] - values[i - 1])
            names = ("rho", "true_rho", "flawed_rho", "true_flawed_rho")
            return Crossing(step, *(run.series(f"rollout/{name}", "train").smoothed().at(step) for name in names))
    return None


def predicted_rho(run: Run) -> float | None:
    """Return the rho at which the advantage of flagged rollouts turns negative by theory; None where there is none.

    With a reward that is corrected for the errors of its judge, it is that of another penalty. Where the rates come
    from an audit, this penalty changes in the run. Above penalty 2 the advantage is never positive.
    """
    reward, audit = run.table("reward"), run.table("judge").get("audit")
    if not run.penalty or (isinstance(audit, Mapping) and audit.get("correct")):
        return None
    rates = reward.get("judge_recall", 1.0), reward.get("judge_false_positive_rate", 0.0)
    rho = shift_ratio(equivalent_penalty(run.penalty, *rates))
    return rho if rho >= 0 else None


def advantage(run: Run, name: Literal["fully_correct", "flawed", "wrong"]) -> Series:
    """Return the mean advantage of a class of training rollouts, by verdict, or by the oracle without a judge.

    Args:
        run: Run of a policy.
        name: Class of the rollouts.

    Returns:
        One value for each training step; an empty series if it was not measured.
    """
    by_verdict = bool(run.series("advantage/flawed", "train"))
    return run.series(f"advantage/{name}" if by_verdict else f"advantage/true_{name}", "train")


def rho_series(run: Run, name: Literal["rho", "flawed_rho"]) -> Series:
    """Return rho of training batches, by verdict, or by the oracle without a judge.

    Args:
        run: Run of a policy.
        name: "rho" of the whole batch, or "flawed_rho" of the groups with flawed positives.

    Returns:
        One value for each training step; an empty series if it was not measured.
    """
    by_verdict = run.series(f"rollout/{name}", "train")
    return by_verdict or run.series(f"rollout/true_{name}", "train")


def sets_of(runs: Sequence[Run]) -> list[str]:
    """Return the names of all validation sets of the runs; [""], which means training rollouts, without any."""
    return list(dict.fromkeys(name for run in runs for name in run.sets)) or [""]


def set_title(name: str) -> str:
    """Return the name of a validation set for readers."""
    return _SETS.get(name, name) or "training"


def measured(run: Run, metric: str, split: str) -> Series:
    """Return a metric of a run.

    Args:
        run: The run.
        metric: Name of the metric, without the name of the set.
        split: Name of a validation set; "" for the training rollouts.

    Returns:
        The values on the validation set, or the running mean on the training rollouts.
    """
    if split:
        return run.series(f"{split}/{metric}")
    return run.series(metric if run.genrm else f"rollout/{metric}", "train").smoothed()


def summarize(runs: Sequence[Run]) -> list[Row]:
    """Return a row for every metric, set and label that was measured; policies come first, then judges."""
    rows = []
    for genrm, metrics in ((False, POLICY), (True, GENRM)):
        chosen = [run for run in runs if run.genrm == genrm]
        for name in sets_of(chosen):
            for metric in metrics:
                found = {
                    label: [series for run in group if (series := measured(run, metric.name, name))]
                    for label, group in group_runs(chosen).items()
                }
                rows += _rows(metric, name, {label: series for label, series in found.items() if series})
    return rows


def _rows(metric: Metric, split: str, found: dict[str, list[Series]]) -> list[Row]:
    """Return the rows of a metric, one for each label."""
    ends = {label: [series.values[-1] for series in group] for label, group in found.items()}
    means = [fmean(values) for values in ends.values()]
    goal = {"higher": max, "lower": min}.get(metric.better)
    best = goal(means) if goal and len(set(means)) > 1 else None
    return [
        Row(
            metric,
            split,
            label,
            fmean(series.values[0] for series in found[label]),
            mean,
            stdev(values) if len(values) > 1 else None,
            mean == best,
        )
        for (label, values), mean in zip(ends.items(), means, strict=True)
    ]


def show(value: float, unit: Unit) -> str:
    """Return a value as text: a rate in percent, tokens with one decimal."""
    return percent(value) if unit == "rate" else f"{value:.1f}"


def show_interval(interval: Interval, unit: Unit) -> str:
    """Return an interval as text in brackets, such as "[6.1, 79.2]"; rates are in percent, without the sign."""
    low, high = (show(bound, unit).removesuffix(" %") for bound in interval)
    return f"[{low}, {high}]"


def row_titles(rows: Sequence[Row]) -> dict[tuple[Metric, str], str]:
    """Return (metric, set) -> title of its line in a table."""
    return {(r.metric, r.split): f"{r.metric.title} · {set_title(r.split)}" for r in rows}


def crossing_texts(runs: Sequence[Run]) -> dict[str, str]:
    """Return label -> text about the crossings of its runs, for runs with kind fapo."""
    texts = {}
    for label, group in group_runs([run for run in runs if run.kind == "fapo"]).items():
        texts[label] = "; ".join(crossing_text(find_crossing(run)) for run in group)
    return texts


def crossing_text(crossing: Crossing | None) -> str:
    """Return step and rho of a crossing as text."""
    if crossing is None:
        return "not within the run"
    batch = [
        f"{rho:.2f} by the {who}"
        for who, rho in (("judge", crossing.rho), ("oracle", crossing.true_rho))
        if rho is not None
    ]
    own = "" if crossing.own_rho is None else f", rho = {crossing.own_rho:.2f} where there are flawed positives"
    return f"step {crossing.step:.0f}{own}" + (f" (whole batch: {', '.join(batch)})" if batch else "")


def print_summary(run_dirs: Sequence[str | Path], console: Console | None = None) -> None:
    """Print one table of the policies and one of the judges.

    Args:
        run_dirs: Run folders.
        console: Console to print on; the default is standard output.

    Raises:
        DataError: If a folder holds no run.
    """
    console = console or Console()
    runs = [read_run(path) for path in run_dirs]
    rows = summarize(runs)
    for title, metrics in (("Policies: start → end", POLICY), ("Judges (GenRM): before → after", GENRM)):
        chosen = [row for row in rows if row.metric in metrics]
        if not chosen:
            continue
        labels = list(dict.fromkeys(row.label for row in chosen))
        table = Table(title=title, title_justify="left", title_style="bold")
        table.add_column("metric")
        for label in labels:
            table.add_column(escape(label), justify="right")
        cells = {(row.metric, row.split, row.label): row for row in chosen}
        for (metric, name), line in row_titles(chosen).items():
            texts = []
            for label in labels:
                row = cells.get((metric, name, label))
                texts.append("" if row is None else f"[bold green]{row.text}[/]" if row.best else row.text)
            table.add_row(escape(line), *texts)
        if metrics is POLICY and (crossings := crossing_texts(runs)):
            table.add_row("flawed positives turn negative at", *(crossings.get(label, "–") for label in labels))
        console.print(table)
