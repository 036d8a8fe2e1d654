"""Contents of the plots: panels of curves, computed from runs. The script of the page draws them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from fapo.report.run_labels import group_runs
from fapo.report.summary import (
    GENRM,
    advantage,
    find_crossing,
    measured,
    predicted_rho,
    rho_series,
    set_title,
    sets_of,
)
from fapo.training.run_reader import NOTHING, Run, Series

Color = Literal["orange", "blue", "pink", "green", "red", "sky", "violet", "grey"]
Scale = Literal["rate", "rate from 0", "number", "log"]
DASHES = ("none", "8 3", "2 2.5", "8 3 2 3")
"""Line styles, as SVG's stroke-dasharray; the second label of a colour gets the second style."""
_COLORS: dict[str, Color] = {
    "outcome": "orange",
    "decoupled": "violet",
    "filter": "sky",
    "first_error": "green",
    "step_ratio": "red",
    "genrm_step": "green",
    "genrm_outcome": "pink",
}
_BY_PENALTY: dict[float | None, Color] = {1.0: "blue", 2.0: "pink"}
_EVERY_SET: tuple[tuple[str, str, Scale], ...] = (
    ("accuracy", "Accuracy", "rate"),
    ("reliable_accuracy", "Right for the right reason", "rate"),
    ("true_fp_ratio", "True flawed positives", "rate from 0"),
)
_UPDATE: tuple[tuple[str, Scale, tuple[str, ...]], ...] = (
    ("Loss", "number", ("loss", "actor/pg_loss")),
    ("Reward, mean of the batch", "number", ("reward", "critic/rewards/mean")),
    ("Entropy of the policy, nats a token", "number", ("entropy", "actor/entropy")),
    ("Norm of the gradient", "number", ("grad_norm", "actor/grad_norm")),
    ("Clip rate, of tokens", "rate from 0", ("clip_ratio/region_mean", "actor/pg_clipfrac")),
)
"""Plots of the update, with the names that TRL and verl give to their metric."""
_AUDIT: tuple[tuple[str, str, Scale], ...] = (
    ("youden_j", "Youden's J of the judge, in the audit", "number"),
    ("gap", "Flawed positives by the second judge minus those by the judge", "number"),
)
"""Plots of the audit: name of a metric with an interval, title and scale."""
_CLASSES: tuple[tuple[Literal["fully_correct", "flawed", "wrong"], str, Color], ...] = (
    ("fully_correct", "fully correct", "green"),
    ("flawed", "flawed", "red"),
    ("wrong", "wrong", "grey"),
)


@dataclass(frozen=True)
class Style:
    """Style of the curves of one label."""

    color: Color
    """Color by kind of reward, a name of PALETTE."""
    dash: int = 0
    """Index into DASHES."""


Styled = Sequence[tuple[Style, Run]]
"""Runs, each with the style of its curves."""


@dataclass(frozen=True)
class Curve:
    """One line of a plot."""

    series: Series
    """Values that are drawn."""
    style: Style
    """Style of the line."""
    faint: Series = NOTHING
    """Measurements behind a running mean, drawn faintly; may be empty."""
    end: str = ""
    """Text at the end of the line."""
    name: str = ""
    """Name of the line, where it has no text at its end."""


@dataclass(frozen=True)
class Mark:
    """A point on a line with a text."""

    step: float
    """Training step, on the x axis."""
    value: float
    """Value, on the y axis."""
    text: str
    """Text beside the point."""
    style: Style
    """Style of the line."""


@dataclass(frozen=True)
class Panel:
    """One plot."""

    title: str
    """Plain text above the plot."""
    curves: tuple[Curve, ...]
    """Lines of the plot."""
    scale: Scale = "rate"
    """Scale of the y axis."""
    marks: tuple[Mark, ...] = ()
    """Points on the lines."""
    level: float | None = None
    """Value of a dotted horizontal line; None for no such line."""
    axis: str = "step"
    """Name of the x axis."""


def styles(runs: Sequence[Run]) -> dict[str, Style]:
    """Return label -> style; the color shows the reward, and the dash distinguishes labels of one color."""
    found: dict[str, Style] = {}
    used: Counter[Color] = Counter()
    for label, group in group_runs(runs).items():
        color: Color = _COLORS.get(group[0].kind, "grey")
        if group[0].penalty is not None:
            color = _BY_PENALTY.get(group[0].penalty, "sky")
        found[label] = Style(color, used[color] % len(DASHES))
        used[color] += 1
    return found


def policy_panels(runs: Sequence[Run]) -> list[Panel]:
    """Return the plots of the policies, without those that have no curve."""
    policies = styled_runs(runs, genrm=False)
    splits = sets_of([run for _, run in policies])
    panels: list[Panel] = []
    for name, title, scale in _EVERY_SET:
        panels += [_metric(policies, name, f"{title}, {set_title(split)}", split, scale) for split in splits]
    panels += [
        _metric(policies, "fp_ratio", "Judged flawed positives, of correct", splits[0], "rate from 0"),
        _metric(policies, "length", "Response length, tokens", splits[0], "number"),
        *_rhos(policies),
        *(_advantages(label, group) for label, group in group_runs(runs).items() if not group[0].genrm),
        _training(policies, "judge/f1", "F1 of the judge, by the oracle"),
        *(_audited(policies, name, title, scale) for name, title, scale in _AUDIT),
        _training(policies, "rollout/unscored_rate", "Unscored rollouts", "rate from 0"),
    ]
    return [panel for panel in panels if panel.curves]


def genrm_panels(runs: Sequence[Run]) -> list[Panel]:
    """Return the plots of the judges in training: all metrics on the first validation set, F1 on every set."""
    judges = styled_runs(runs, genrm=True)
    splits = sets_of([run for _, run in judges])
    panels = []
    for metric in GENRM:
        scale: Scale = "number" if metric.unit == "tokens" else "rate"
        title = metric.title[0].upper() + metric.title[1:] + (", tokens" if metric.unit == "tokens" else "")
        panels.append(_metric(judges, metric.name, title, splits[0], scale))
        if metric.name == "f1":
            panels += [_metric(judges, "f1", f"{title}, {set_title(split)}", split) for split in splits[1:]]
    return [panel for panel in panels if panel.curves]


def update_panels(runs: Sequence[Run]) -> list[Panel]:
    """Return the plots of the update: loss, reward, entropy, gradient norm and clip rate, by TRL or verl."""
    styled = [*styled_runs(runs, genrm=False), *styled_runs(runs, genrm=True)]
    panels = []
    for title, scale, keys in _UPDATE:
        found = (
            (style, run.name, next(filter(None, (run.series(key, "train") for key in keys)), NOTHING))
            for style, run in styled
        )
        panels.append(Panel(title, _running(found), scale))
    return [panel for panel in panels if panel.curves]


def styled_runs(runs: Sequence[Run], genrm: bool) -> Styled:
    """Return the judges or the policies among the runs, each with its style."""
    look = styles(runs)
    return [(look[label], run) for label, group in group_runs(runs).items() for run in group if run.genrm == genrm]


def _metric(runs: Styled, name: str, title: str, split: str, scale: Scale = "rate") -> Panel:
    """Return the plot of a metric on a validation set."""
    curves = (Curve(measured(run, name, split), style, name=run.name) for style, run in runs)
    return Panel(title, tuple(curve for curve in curves if curve.series), scale)


def _training(runs: Styled, key: str, title: str, scale: Scale = "rate") -> Panel:
    """Return the plot of a metric of training batches."""
    return Panel(title, _running((style, run.name, run.series(key, "train")) for style, run in runs), scale)


def _audited(runs: Styled, name: str, title: str, scale: Scale) -> Panel:
    """Return the plot of a number of the audit, which is about many steps, with dotted lines around its interval."""
    curves = []
    for style, run in runs:
        bound = Style(style.color, DASHES.index("2 2.5"))
        curves.append(Curve(run.series(f"audit/{name}", "train"), style, name=run.name))
        for end, text in (("low", "lower bound"), ("high", "upper bound")):
            curves.append(Curve(run.series(f"audit/{name}_{end}", "train"), bound, name=f"{run.name}, {text}"))
    return Panel(title, tuple(curve for curve in curves if curve.series), scale, level=0.0)


def _running(found: Iterable[tuple[Style, str, Series]]) -> tuple[Curve, ...]:
    """Return the running means as named curves, with the measurements drawn faintly."""
    return tuple(Curve(series.smoothed(), style, series, name=name) for style, name, series in found if series)


def _rhos(runs: Styled) -> list[Panel]:
    """Return the plots of rho of the groups with flawed positives, with the crossing, and of the whole batch."""
    predicted = [predicted_rho(run) for _, run in runs if run.penalty]
    level, marks = next(filter(None, predicted), None if predicted else 1.0), []
    for style, run in runs:
        if (crossing := find_crossing(run)) and crossing.own_rho:
            marks.append(Mark(crossing.step, crossing.own_rho, f"rho = {crossing.own_rho:.2f}", style))
    own = _running((style, run.name, rho_series(run, "flawed_rho")) for style, run in runs)
    batch = _running((style, run.name, rho_series(run, "rho")) for style, run in runs)
    return [
        Panel("rho where there are flawed positives", own, "log", tuple(marks), level),
        Panel("rho of the whole batch", batch, "log", level=level),
    ]


def _advantages(label: str, group: Sequence[Run]) -> Panel:
    """Return the plot of mean advantages by class, for the first run of a label."""
    run, title = group[0], f"Mean advantage, {label}"
    found = ((advantage(run, name), Style(color), end) for name, end, color in _CLASSES)
    curves = tuple(Curve(series.smoothed(), style, series, end) for series, style, end in found if series)
    crossing = find_crossing(run)
    marks = (Mark(crossing.step, 0.0, f"step {crossing.step:.0f}", Style("red")),) if crossing else ()
    return Panel(title if len(group) == 1 else f"{title}: {run.name}", curves, "number", marks, 0.0)
