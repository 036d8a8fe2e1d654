"""What runs achieved: start -> end of each metric, side by side; the step at which flawed positives turn negative."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fapo.evaluation.intervals import percent
from fapo.report.labels import grouped
from fapo.training.run_reader import WINDOW, Run, Series, read_run


@dataclass(frozen=True)
class Metric:
    """Something measured on a validation set."""

    name: str
    """Its name in the rows, behind that of the set."""
    title: str
    """What a reader calls it."""
    unit: Literal["share", "tokens"] = "share"
    """share: a fraction, shown in percent."""
    better: Literal["higher", "lower", ""] = "higher"
    """Which way is good."""


POLICY = (
    Metric("accuracy", "accuracy"),
    Metric("reliable_accuracy", "right for the right reason"),
    Metric("true_fp_ratio", "true flawed positives, of correct", better="lower"),
    Metric("fp_ratio", "judged flawed positives, of correct", better="lower"),
    Metric("length", "response length", "tokens", ""),
)
GENRM = (
    Metric("precision", "precision"),
    Metric("recall", "recall"),
    Metric("f1", "F1"),
    Metric("location", "exact location"),
    Metric("invalid_share", "no valid verdict", better="lower"),
    Metric("tokens", "critique length", "tokens", ""),
)
_LASTING = WINDOW + 1  # a single outlier lowers WINDOW means
_SETS = {"validation": "in-distribution", "harder": "harder"}


@dataclass(frozen=True)
class Row:
    """One metric of one label on one set."""

    metric: Metric
    """What was measured."""
    split: str
    """On which validation set; "" for the training rollouts of runs that have no validation."""
    label: str
    """Which runs."""
    start: float
    """First value, mean over the runs."""
    end: float
    """Last value, mean over the runs."""
    spread: float | None
    """Standard deviation of the last values over the runs; None for a single one."""
    num_runs: int
    """Runs (seeds) that have the metric."""
    best: bool
    """Whether it ends better than some other label and worse than none."""

    @property
    def text(self) -> str:
        """Start -> end, for a table."""
        spread = "" if self.spread is None else f" ± {show(self.spread, self.metric).removesuffix(' %')}"
        return f"{show(self.start, self.metric)} → {show(self.end, self.metric)}{spread}"


@dataclass(frozen=True)
class Crossing:
    """Where the mean advantage of flawed positives turns negative: warm-up ends, refinement begins."""

    step: float
    """The step, by interpolation; the first one if it is negative from the start."""
    rho: float | None
    """Fully correct per wrong rollout of the whole batch there, by the judge."""
    true_rho: float | None
    """The same by the oracle."""
    flawed_rho: float | None = None
    """The same over the groups of flawed positives, weighted by their number: what theory speaks of. By the judge."""
    true_flawed_rho: float | None = None
    """The same by the oracle."""

    @property
    def own_rho(self) -> float | None:
        """Rho as flawed positives see it, by the classes that earned the advantage: the judge's, else the oracle's."""
        return self.true_flawed_rho if self.flawed_rho is None else self.flawed_rho


def find_crossing(run: Run) -> Crossing | None:
    """First step from which the running mean of the flawed advantage is negative, and stays so for _LASTING rows."""
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


def advantage(run: Run, name: Literal["fully_correct", "flawed", "wrong"]) -> Series:
    """Mean advantage of a class of training rollouts: by verdict, or by the oracle in a run without a judge."""
    by_verdict = bool(run.series("advantage/flawed", "train"))
    return run.series(f"advantage/{name}" if by_verdict else f"advantage/true_{name}", "train")


def rho_series(run: Run, name: Literal["rho", "flawed_rho"]) -> Series:
    """Rho of training batches: by verdict, or by the oracle in a run without a judge."""
    by_verdict = run.series(f"rollout/{name}", "train")
    return by_verdict or run.series(f"rollout/true_{name}", "train")


def sets_of(runs: Sequence[Run]) -> list[str]:
    """Validation sets of any of the runs; [""], the training rollouts, where there are none."""
    return list(dict.fromkeys(name for run in runs for name in run.sets)) or [""]


def set_title(name: str) -> str:
    """What a reader calls a validation set."""
    return _SETS.get(name, name) or "training"


def measured(run: Run, metric: str, split: str) -> Series:
    """A metric on a validation set; for the split "" the running mean on the training rollouts."""
    if split:
        return run.series(f"{split}/{metric}")
    return run.series(metric if run.genrm else f"rollout/{metric}", "train").smoothed()


def summarize(runs: Sequence[Run]) -> list[Row]:
    """Rows for every metric, set and label that was measured: policies first, then judges."""
    rows = []
    for genrm, metrics in ((False, POLICY), (True, GENRM)):
        chosen = [run for run in runs if run.genrm == genrm]
        for name in sets_of(chosen):
            for metric in metrics:
                found = {
                    label: [series for run in group if (series := measured(run, metric.name, name))]
                    for label, group in grouped(chosen).items()
                }
                rows += _rows(metric, name, {label: series for label, series in found.items() if series})
    return rows


def _rows(metric: Metric, split: str, found: dict[str, list[Series]]) -> list[Row]:
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
            len(values),
            mean == best,
        )
        for (label, values), mean in zip(ends.items(), means, strict=True)
    ]


def show(value: float, metric: Metric) -> str:
    """A value with its unit."""
    return percent(value) if metric.unit == "share" else f"{value:.1f}"


def row_titles(rows: Sequence[Row]) -> dict[tuple[Metric, str], str]:
    """(metric, set) -> title of its line in a table."""
    return {(r.metric, r.split): f"{r.metric.title} · {set_title(r.split)}" for r in rows}


def crossing_texts(runs: Sequence[Run]) -> dict[str, str]:
    """Label of each policy with a flaw penalty -> where its flawed positives turn negative, one part for each run."""
    texts = {}
    for label, group in grouped([run for run in runs if run.kind == "fapo"]).items():
        texts[label] = "; ".join(crossing_text(find_crossing(run)) for run in group)
    return texts


def crossing_text(crossing: Crossing | None) -> str:
    """The moment in a few words."""
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
    """Tables for the terminal: policies side by side, judges before and after. Raises DataError as `read_run` does."""
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
