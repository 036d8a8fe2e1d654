"""Numbers of the plots, packed for the script that draws them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fapo.report.panels import DASHES, Panel, Style, styles
from fapo.report.rollouts import packed_json
from fapo.report.run_labels import group_runs
from fapo.training.run_reader import Run, Series


def pack_numbers(panels: Mapping[str, Panel], runs: Sequence[Run]) -> str:
    """Return plots, and every metric of the runs, as JSON in gzip in base64.

    Args:
        panels: Name of a plot on the page -> its contents.
        runs: Runs that the page shows.

    Returns:
        Text of letters and digits.
    """
    return packed_json({"panels": {name: _panel(panel) for name, panel in panels.items()}, "runs": _runs(runs)})


def _panel(panel: Panel) -> dict[str, Any]:
    """Return a plot as JSON."""
    curves = [
        {
            "name": curve.name,
            "end": curve.end,
            **_look(curve.style),
            **_points(curve.series),
            "faint": _points(curve.faint),
        }
        for curve in panel.curves
    ]
    marks = [
        {"step": mark.step, "value": mark.value, "text": mark.text, "color": mark.style.color} for mark in panel.marks
    ]
    found = {"title": panel.title, "scale": panel.scale, "level": panel.level, "axis": panel.axis}
    return found | {"curves": curves, "marks": marks}


def _runs(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the name, the style and all series of each run, by kind of row and metric."""
    looks, found = styles(runs), []
    for label, group in group_runs(runs).items():
        for run in group:
            series = {f"{kind} {key}": _points(values) for (kind, key), values in _all_series(run).items()}
            name = label if len(group) == 1 else f"{label}: {run.name}"
            found.append({"name": name, **_look(looks[label]), "series": series})
    return found


def _all_series(run: Run) -> dict[tuple[str, str], Series]:
    """Return every metric of a run that has a finite value, by kind of row and name."""
    keys = dict.fromkeys((str(row.get("kind")), key) for row in run.rows for key in row)
    found = {(kind, key): run.series(key, kind) for kind, key in keys if key not in ("step", "kind")}
    return {key: series for key, series in found.items() if series}


def _look(style: Style) -> dict[str, str]:
    """Return color and dashes of a line."""
    return {"color": style.color, "dash": DASHES[style.dash]}


def _points(series: Series) -> dict[str, list[float]]:
    """Return the points of a line; values have six significant digits."""
    return {"steps": [_short(step) for step in series.steps], "values": [float(f"{v:.6g}") for v in series.values]}


def _short(step: float) -> float:
    """Return a whole number as an integer."""
    return int(step) if step == int(step) else step
