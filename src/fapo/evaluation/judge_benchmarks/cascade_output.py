"""The choice of the thresholds of a cascade as JSON, and as a table in Markdown."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich import box
from rich.table import Table

from fapo.data.jsonl import finite
from fapo.evaluation.intervals import LEVEL, NUM_RESAMPLES, SEED, percent, signed_points
from fapo.evaluation.judge_benchmarks.cascade import CascadeChoice
from fapo.evaluation.judge_benchmarks.output import drawn_units


def as_json(found: CascadeChoice) -> dict[str, Any]:
    """Return the choice for `--json`; a number that is not defined is None."""
    return finite(asdict(found))


def toml_line(found: CascadeChoice) -> str:
    """Return the chosen thresholds as the line of a [judge] table, with all digits."""
    return f"thresholds = {list(found.thresholds)}"


def as_table(found: CascadeChoice) -> Table:
    """Return the measured points as a table, the cheapest first."""
    table = Table(
        "judge", "thresholds", "rows to the strong judge", "flawed, cleared by the cheap", "correct, flagged by it",
        box=box.MARKDOWN,
    )  # fmt: skip
    with_strong = any(point.f1 for point in found.points.values())
    has_tokens = _has_tokens(found)
    for name in ("F1", "minus the strong judge, points", "tokens a row: cheap", "strong") if with_strong else ():
        table.add_column(name, justify="right")
    for name, point in sorted(found.points.items(), key=lambda item: item[1].strong_rate.value):
        cells = [
            f"**{name}**" if point.max_error == found.max_error else name,
            "" if point.thresholds is None else "{:.3g}, {:.3g}".format(*point.thresholds),
            *(percent(rate.value, rate.interval) for rate in (point.strong_rate, point.cleared, point.flagged)),
        ]
        if point.f1:
            difference = point.difference
            cells += [
                percent(point.f1.value, point.f1.interval),
                signed_points(difference.value, difference.interval) if difference else "",
                f"{point.cheap_tokens:.1f}",
                f"{point.strong_tokens:.1f}" if has_tokens else "-",
            ]
        table.add_row(*cells)
    return table


def notes(found: CascadeChoice) -> list[str]:
    """Return what a reader of the table has to know."""
    units = drawn_units(found.num_measured, found.num_problems)
    of_rates = "Wilson's" if found.num_problems == found.num_measured else "over problems"
    lines = [
        f"thresholds: chosen on a random half, {found.num_chosen} rows; all numbers are of the other "
        f"{found.num_measured} rows",
        f"intervals: {LEVEL:.0%}; {of_rates} for rates, bootstrap over {units} for F1, paired for differences "
        f"({NUM_RESAMPLES} resamples, seed {SEED})",
    ]
    if any(point.f1 for point in found.points.values()) and not _has_tokens(found):
        lines.append("tokens of the strong judge: not known; its rows lack critique_tokens, or it writes no text")
    if found.max_error < found.smallest_bound:
        lines.append(
            f"a bound below {found.smallest_bound:.3g} needs more rows: the strong judge is asked about all rows that "
            "the cheap one would clear, or flag"
        )
    return lines


def _has_tokens(found: CascadeChoice) -> bool:
    """Return whether the tokens of the strong judge are known."""
    return any(point.strong_tokens for point in found.points.values())
