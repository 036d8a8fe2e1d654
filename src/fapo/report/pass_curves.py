"""pass@k and verified pass@k over k, from the summaries of `fapo eval`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fapo.data.jsonl import finite_number
from fapo.errors import DataError
from fapo.evaluation.intervals import Interval
from fapo.report.panels import Color, Curve, Panel, Style
from fapo.training.run_reader import Series

_LINES: tuple[tuple[str, str, Color], ...] = (
    ("pass_at", "pass@k", "orange"),
    ("verified_pass_at", "verified", "green"),
)


@dataclass(frozen=True)
class PassCurve:
    """pass@k of a policy, or its verified pass@k."""

    name: str
    """Measure: "pass@k" or "verified"."""
    color: Color
    """Color of its line."""
    values: tuple[float, ...]
    """Rate for each number of samples."""
    intervals: tuple[Interval | None, ...]
    """95 % interval of each rate; None where it is unknown."""


@dataclass(frozen=True)
class PassCurves:
    """pass@k of one evaluation."""

    policy: str
    """Name of the policy."""
    judge: str
    """Name of the judge; empty without one."""
    sizes: tuple[int, ...]
    """Numbers of samples k, ascending."""
    curves: tuple[PassCurve, ...]
    """pass@k, and verified pass@k if there was a judge."""

    @property
    def panel(self) -> Panel:
        """Plot of the curves over k."""
        steps = tuple(map(float, self.sizes))
        lines = tuple(Curve(Series(steps, c.values), Style(c.color), end=c.name) for c in self.curves)
        return Panel(f"pass@k, {self.policy}", lines, "rate from 0", axis="k")


def read_pass_curves(paths: Sequence[Path]) -> list[PassCurves]:
    """Return pass@k from summaries of `fapo eval`; raise DataError for any other file."""
    return [_read(path) for path in paths]


def _read(path: Path) -> PassCurves:
    """Return the curves in one summary."""
    remedy = "give the .json file that `fapo eval` writes beside its --out"
    try:
        found = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        raise DataError(f"{path}: no such file; {remedy}") from None
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); {remedy}") from None
    if not isinstance(found, dict) or not isinstance(found.get("pass_at"), dict):
        raise DataError(f"{path}: has no pass_at; {remedy}")
    sizes = sorted(int(size) for size in found["pass_at"] if size.isdigit())
    curves = []
    for key, name, color in _LINES:
        values = _column(found, key, sizes)
        if values is not None:
            bounds = found.get(f"{key}_interval") or {}
            intervals = tuple(_interval(bounds.get(str(size))) for size in sizes)
            curves.append(PassCurve(name, color, values, intervals))
    if not curves:
        raise DataError(f"{path}: pass_at holds no numbers; {remedy}")
    return PassCurves(str(found.get("policy") or path.stem), str(found.get("judge") or ""), tuple(sizes), tuple(curves))


def _column(found: Mapping[str, Any], key: str, sizes: Sequence[int]) -> tuple[float, ...] | None:
    """Return the rates for all sizes; None if one is missing, as verified pass@k is without a judge."""
    table = found.get(key)
    values = [finite_number(table.get(str(size))) for size in sizes] if isinstance(table, Mapping) else []
    return tuple(value for value in values if value is not None) if values and None not in values else None


def _interval(bounds: Any) -> Interval | None:
    """Return an interval, or None if it is not one."""
    numbers = [finite_number(bound) for bound in bounds] if isinstance(bounds, Sequence) else []
    return (numbers[0], numbers[1]) if len(numbers) == 2 and numbers[0] is not None and numbers[1] is not None else None
