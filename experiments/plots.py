"""Plots of runs as PNG pictures: that of the README, those of the paper's figures. They need no display.

python -m experiments.plots demo/genrm-0 demo/baseline-0 demo/fapo-0 -o docs/demo.png
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, PercentFormatter

from fapo.report.palette import PALETTE
from fapo.report.panels import Curve, Mark, Panel, Style, genrm_panels, policy_panels, styled_runs, styles
from fapo.report.summary import advantage, find_crossing
from fapo.training.run_reader import Run, read_run

DASHES = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
"""Line styles in matplotlib's notation, in the order of those of the page."""

_LOOK = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.axisbelow": True,
    **{f"{name}.color": PALETTE["ink"][0] for name in ("text", "xtick", "ytick")},
    "axes.labelcolor": PALETTE["ink"][0],
    "axes.edgecolor": PALETTE["ink"][0],
    "grid.color": PALETTE["grid"][0],
    "grid.linewidth": 0.7,
    "xtick.major.size": 2.5,
    "ytick.major.size": 0,
}


def overview(runs: Sequence[Run]) -> bytes:
    """Return six plots of the runs as one PNG picture with a legend."""
    return picture(overview_panels(runs), styles(runs), columns=3)


def overview_panels(runs: Sequence[Run]) -> list[Panel]:
    """Return the six plots of the overview: accuracy, flawed positives, their advantage, rho, the judge."""
    policies, judges = policy_panels(runs), genrm_panels(runs)
    wanted = [p for p in policies if p.title.startswith("Accuracy")][:2]
    wanted += [p for p in policies if "flawed positives" in p.title][:1]
    wanted += [p for p in [_flawed_advantage(runs)] if p.curves]
    wanted += [p for p in policies if p.title.startswith("rho")][:1]
    wanted += [replace(p, title="F1 of the GenRM in training") for p in judges if p.title == "F1"]
    rest = [p for p in (*policies, *judges) if p not in wanted and p.title != "F1"]
    return (wanted + rest)[:6]


def _flawed_advantage(runs: Sequence[Run]) -> Panel:
    """Return the plot of the mean advantage of flawed positives, for all policies."""
    curves, marks = [], []
    for style, run in styled_runs(runs, genrm=False):
        if series := advantage(run, "flawed"):
            curves.append(Curve(series.smoothed(), style, series))
        if crossing := find_crossing(run):
            marks.append(Mark(crossing.step, 0.0, f"step {crossing.step:.0f}", style))
    return Panel("Mean advantage of flawed positives", tuple(curves), "number", tuple(marks), 0.0)


def picture(panels: Sequence[Panel], looks: Mapping[str, Style], columns: int) -> bytes:
    """Draw plots side by side.

    Args:
        panels: Plots.
        looks: Legend: label -> style.
        columns: Maximum number of plots in a row.

    Returns:
        PNG picture with a light background.
    """
    columns = max(1, min(columns, len(panels)))
    lines = max(1, -(-len(panels) // columns))
    with matplotlib.rc_context({**_LOOK, "font.size": 9, "axes.titlesize": 10, "axes.titleweight": "bold"}):
        size = (4 * columns, 3.0 * lines + 0.3)
        figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1), facecolor="white")
        FigureCanvasAgg(figure)
        for i, panel in enumerate(panels):
            axes = figure.add_subplot(lines, columns, i + 1)
            axes.set_title(panel.title, loc="left", pad=8)
            _draw(axes, panel)
        handles = [
            Line2D([], [], color=PALETTE[s.color][0], linestyle=DASHES[s.dash], linewidth=2) for s in looks.values()
        ]
        if handles:
            figure.legend(
                handles, list(looks), loc="outside lower center", ncols=len(handles), frameon=False, fontsize=10
            )
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()


def _draw(axes: Axes, panel: Panel) -> None:
    """Draw a plot into axes."""
    for curve in panel.curves:
        color, dash = PALETTE[curve.style.color][0], DASHES[curve.style.dash]
        axes.plot(curve.faint.steps, curve.faint.values, color=color, linewidth=0.7, alpha=0.28)
        few = len(curve.series.steps) <= 25 and not curve.faint
        marker = "o" if few else ""
        axes.plot(
            curve.series.steps,
            curve.series.values,
            color=color,
            linestyle=dash,
            linewidth=1.7,
            marker=marker,
            markersize=2.6,
        )
        if curve.end:
            place = (curve.series.steps[-1], curve.series.values[-1])
            axes.annotate(curve.end, place, (5, 0), textcoords="offset points", color=color, va="center", fontsize=8)
    _set_scale(axes, panel)
    if panel.level is not None:
        axes.axhline(panel.level, color=PALETTE["ink"][0], linewidth=0.9, linestyle=(0, (2, 2)), zorder=1)
    axes.margins(x=0.02)
    if panel.marks:
        _draw_marks(axes, panel.marks)
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("step", fontsize=8, labelpad=1)


def _draw_marks(axes: Axes, marks: Sequence[Mark]) -> None:
    """Draw a dot on each line, and its text above all lines, joined to the dot."""
    bottom, top = axes.transData.transform([(0, y) for y in axes.get_ylim()])[:, 1]
    room = top + (top - bottom) * 0.11 * len(marks)
    axes.set_ylim(top=axes.transData.inverted().transform((0, room))[1])
    left, right = axes.get_xlim()
    for i, mark in enumerate(marks):
        color, height, late = PALETTE[mark.style.color][0], 0.97 - 0.09 * i, mark.step > left + 0.7 * (right - left)
        _, y = axes.transAxes.inverted().transform(axes.transData.transform((mark.step, mark.value)))
        axes.axvline(mark.step, y, height, color=color, linewidth=0.9)
        axes.plot([mark.step], [mark.value], "o", color=color, markersize=5, zorder=5)
        place, side = (-4 if late else 4, 0), "right" if late else "left"
        axes.annotate(
            mark.text,
            (mark.step, height),
            place,
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            color=color,
            fontsize=8,
            weight="bold",
            ha=side,
            va="top",
        )


def _set_scale(axes: Axes, panel: Panel) -> None:
    """Set scale, limits and ticks of the y axis."""
    values = [v for curve in panel.curves for s in (curve.series, curve.faint) for v in s.values]
    low, high = min(values), max(values)
    if panel.scale == "log" and high > 0:
        low = min(value for value in values if value > 0)
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(FixedLocator([m * 10.0**k for k in range(-3, 4) for m in (1, 2, 5)]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(axis="y", which="minor", size=0)
        level = panel.level or 1.0
        axes.set_ylim(min(low, level) / 1.2, max(high, level) * 1.2)
        return
    axes.yaxis.set_major_locator(MaxNLocator(5))
    if panel.scale.startswith("rate"):
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0 if high - low > 0.03 else 1, symbol=" %"))
        floor = 0.0 if panel.scale == "rate from 0" else low
        room = max(0.08 * (high - floor), 0.005)
        axes.set_ylim(0 if floor == 0 else floor - room, high + room)
    elif low > 0:
        room = max(high - low, 0.25 * high) * 0.3
        axes.set_ylim(max(0.0, low - room), high + room)


def main() -> None:
    """Write the picture of some runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("-o", "--output", type=Path, required=True, help="PNG file")
    given = parser.parse_args()
    given.output.write_bytes(overview([read_run(run) for run in given.runs]))


if __name__ == "__main__":
    main()
