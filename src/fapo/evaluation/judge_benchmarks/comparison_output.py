"""Output of a comparison of judges: as JSON, and as tables of text, Markdown or HTML."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from html import escape as escape_html
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Group
from rich.table import Table
from rich.text import Text

from fapo.data.files import atomic_path, write_text
from fapo.data.jsonl import finite
from fapo.data.untrusted_text import show_invisible
from fapo.evaluation.intervals import LEVEL, NUM_RESAMPLES, SEED, decimal, percent, signed_points
from fapo.evaluation.judge_benchmarks.compare import ComparedJudge, JudgeComparison
from fapo.evaluation.judge_benchmarks.output import INVALID, PROCESS_INVALID, drawn_units

COLUMNS = {
    "flawed-positive": {"precision": "precision", "recall": "recall", "f1": "F1", "youden_j": "J"},
    "process": {"error_acc": "error acc", "correct_acc": "correct acc", "mean_f1": "mean F1", "youden_j": "J"},
}
"""Numbers of the table with their headings, by benchmark. The last two have intervals and differences."""
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Judges compared</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em; }}
table {{ border-collapse: collapse; margin: 1em 0; display: block; overflow-x: auto; }}
caption {{ text-align: left; font-weight: bold; }}
th, td {{ padding: .3em .8em; border-bottom: 1px solid #ccc; text-align: right; white-space: nowrap; }}
th:first-child, td:first-child {{ text-align: left; }}
</style>
<main>
{body}
</main>
</html>
"""


@dataclass(frozen=True)
class Grid:
    """A table of texts."""

    title: str
    """Title."""
    headings: tuple[str, ...]
    """Headings of the columns."""
    rows: tuple[tuple[str, ...], ...]
    """Cells by row; the first cell of a row is its name."""


def as_json(found: JudgeComparison) -> dict[str, Any]:
    """Return a comparison for JSON; a number that is not defined is None."""
    out: dict[str, Any] = finite(asdict(found) | {"notes": notes(found)})
    return out


def as_text(found: JudgeComparison) -> Group:
    """Return a comparison as tables for a terminal of 80 columns; an interval stands below its number."""
    tables = []
    for grid in grids(found):
        table = Table(title=Text(grid.title), title_justify="left", box=SIMPLE)
        for number, heading in enumerate(grid.headings):
            first = number == 0
            words = heading.replace(" ", "\n")
            table.add_column(words, justify="left" if first else "right", no_wrap=not first, overflow="fold")
        for name, *cells in grid.rows:
            table.add_row(Text(name), *(re.sub(r" (?=\[|to )", "\n", cell) for cell in cells))
        tables.append(table)
    return Group(*tables, *(Text(f"- {note}") for note in notes(found)))


def write_table(path: Path, found: JudgeComparison) -> None:
    """Write a comparison as a file.

    Args:
        path: File; its suffix .md or .html is the form.
        found: Comparison.
    """
    write_text(path, as_markdown(found) if path.suffix == ".md" else as_html(found))


def as_markdown(found: JudgeComparison) -> str:
    """Return a comparison as Markdown: a table for each grid, then the notes."""
    parts = []
    for grid in grids(found):
        lines = [grid.headings, tuple(["---"] + ["---:"] * (len(grid.headings) - 1)), *grid.rows]
        cells = [[cell if number == 1 else _markdown(cell) for cell in line] for number, line in enumerate(lines)]
        parts.append("\n".join([f"**{_markdown(grid.title)}**", "", *(f"| {' | '.join(line)} |" for line in cells)]))
    parts.append("\n".join(f"* {_markdown(note)}" for note in notes(found)))
    return "\n\n".join(parts) + "\n"


def as_html(found: JudgeComparison) -> str:
    """Return a comparison as one HTML page without links to other files."""
    parts = []
    for grid in grids(found):
        head = "".join(f'<th scope="col">{escape_html(heading)}</th>' for heading in grid.headings)
        body = "\n".join(f"<tr>{''.join(f'<td>{escape_html(cell)}</td>' for cell in row)}</tr>" for row in grid.rows)
        caption = f"<caption>{escape_html(grid.title)}</caption>"
        parts.append(f"<table>{caption}\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>")
    items = "\n".join(f"<li>{escape_html(note)}</li>" for note in notes(found))
    return PAGE.format(body="\n".join([*parts, f"<ul>\n{items}\n</ul>"]))


def grids(found: JudgeComparison) -> list[Grid]:
    """Return the tables of a comparison: numbers, differences, answers, and the spread over prompts if there is one."""
    columns = COLUMNS[found.benchmark]
    f1, j = list(columns)[-2:]
    first, *others = found.judges
    judges = [(_shown(name), *_cells(judge, list(columns))) for name, judge in found.judges.items()]
    answers = [(_shown(name), *_answers(judge)) for name, judge in found.judges.items()]
    differences = [
        (_shown(name), signed_points(f.value, f.interval), _signed(j_.value, j_.interval))
        for name in others
        for f, j_ in [(found.judges[name].differences[f1], found.judges[name].differences[j])]
    ]
    out = [
        Grid(f"Judges, {found.benchmark}", ("judge", *columns.values()), tuple(judges)),
        Grid(f"Differences to {_shown(first)}", ("judge", f"{columns[f1]}, points", "J"), tuple(differences)),
        Grid("Answers", ("judge", "no verdict", "tokens", "seconds"), tuple(answers)),
        *_by_size(found),
    ]
    if found.sensitivity:
        spread = [
            (
                _shown(entry.model),
                str(len(entry.names)),
                " to ".join(percent(value) for value in entry.ranges[f1]),
                " to ".join(f"{value:.2f}" for value in entry.ranges[j]),
                percent(entry.disagreement.value, entry.disagreement.interval),
            )
            for entry in found.sensitivity
        ]
        headings = ("model", "prompts", columns[f1], "J", "rows that differ")
        out.append(Grid("Spread of a model over prompts and settings", headings, tuple(spread)))
    return out


def _by_size(found: JudgeComparison) -> Iterator[Grid]:
    """Yield J by the size of the solutions, with the number of rows; none where all solutions are of one size."""
    kinds = {
        "number of steps": {name: judge.by_num_steps for name, judge in found.judges.items()},
        "length in characters": {name: judge.by_length for name, judge in found.judges.items()},
    }
    for kind, of_kind in kinds.items():
        sizes = next(iter(of_kind.values()))
        if len(sizes) > 1:
            headings = ("judge", *(f"{size} n={of_size.n}" for size, of_size in sizes.items()))
            rows = [
                (_shown(name), *(decimal(part.youden_j) for part in parts.values())) for name, parts in of_kind.items()
            ]
            yield Grid(f"J by {kind}", headings, tuple(rows))


def notes(found: JudgeComparison) -> list[str]:
    """Return how the numbers were made, and the settings of each judge."""
    left_out = f"; {found.num_left_out} further rows lack an answer of some judge" if found.num_left_out else ""
    invalid = PROCESS_INVALID if found.benchmark == "process" else INVALID[found.invalid]
    units = drawn_units(found.num_rows, found.num_problems)
    out = [
        f"data: {', '.join(found.data)}; {found.num_rows} rows, {found.num_flawed} with a wrong step{left_out}",
        f"intervals: {LEVEL:.0%} bootstrap over {units}, {NUM_RESAMPLES} resamples, seed {SEED}; those of differences "
        "are paired: each draw has the same rows for all judges",
        f"no verdict: {invalid}",
        "tokens, seconds: mean length of a critique, and mean time from its request to its end; - is not known",
        'J: Youden\'s J, recall minus false positive rate of "flagged"; 0 for a judge that flags at random',
    ]
    if found.sensitivity:
        out.append('rows that differ: the prompts do not all say the same about "flagged"')
    out += [f"{name}: {judge.settings}" for name, judge in found.judges.items() if judge.settings not in ("", name)]
    return [_shown(note) for note in out]


def write_plot(path: Path, found: JudgeComparison) -> None:
    """Draw F1 of each judge against the mean tokens of its critiques.

    Args:
        path: File; its suffix, .png or .svg, is the form.
        found: Comparison. Judges without known tokens are at 0, as flag-all and flag-none are.
    """
    from matplotlib.figure import Figure

    name, heading = list(COLUMNS[found.benchmark].items())[-2]
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for judge, of_one in found.judges.items():
        number = of_one.numbers[name]
        if math.isnan(number.value):
            continue
        tokens = 0.0 if math.isnan(of_one.critique_tokens) else of_one.critique_tokens
        around = [[100 * (number.value - number.interval[0])], [100 * (number.interval[1] - number.value)]]
        axes.errorbar([tokens], [100 * number.value], yerr=around, fmt="o", capsize=3, label=_shown(judge))
    axes.set(xlabel="tokens of a critique, mean", ylabel=f"{heading}, %", ylim=(0, 100))
    figure.legend(loc="outside right upper", frameon=False)
    with atomic_path(path) as draft:
        figure.savefig(draft, format=path.suffix.removeprefix("."), dpi=150)


def _cells(judge: ComparedJudge, names: Sequence[str]) -> list[str]:
    """Return the numbers of a judge; the last two have intervals."""
    *plain, f1, j = (judge.numbers[name] for name in names)
    rates = [percent(number.value) for number in plain]
    return [*rates, percent(f1.value, f1.interval), decimal(j.value, j.interval)]


def _answers(judge: ComparedJudge) -> list[str]:
    """Return the rate of answers without a verdict, and the mean tokens and seconds of a critique."""
    costs = ((judge.critique_tokens, ".0f"), (judge.critique_seconds, ".2f"))
    return [percent(judge.invalid_rate), *("-" if math.isnan(value) else format(value, form) for value, form in costs)]


def _signed(value: float, interval: tuple[float, float]) -> str:
    """Return the difference of two decimals and its interval as text."""
    return "-" if math.isnan(value) else f"{value:+.2f} [{interval[0]:+.2f}, {interval[1]:+.2f}]"


def _shown(text: str) -> str:
    """Return untrusted text on one line, with invisible characters written out."""
    return show_invisible(" ".join(text.split()))


def _markdown(text: str) -> str:
    """Return text that Markdown shows as it is."""
    return re.sub(r"([\\`*_|<>#\[\]])", r"\\\1", text)
