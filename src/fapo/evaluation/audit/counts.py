"""What an audit found: the rows of its output, their counts, and the tables that are printed."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Literal

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fapo.data.untrusted_text import escape
from fapo.evaluation.intervals import percent, wilson_interval
from fapo.evaluation.metrics import fp_ratio
from fapo.judge.quality import ratio

FIFTHS = ("first fifth", "second", "middle", "fourth", "last fifth")
"""Parts of a solution, to say where its error is: fifths of its steps, by the middle of the step."""
NUM_SHOWN = 5
"""Rows that make no sense are named up to this number."""


@dataclass(frozen=True)
class Audited:
    """One row of the output."""

    id: str | int | float | None
    """That of the row; None for a row that makes no sense."""
    source: str
    """Where the row says it comes from; else the name of its file."""
    correct: bool | None
    """Whether the final answer is right; None for a row that makes no sense."""
    status: Literal["ok", "unparsable", "failed", "skipped"]
    """ok: judged; unparsable, failed: no verdict; skipped: not asked."""
    error_step: int | None = None
    """Index (from 0) of the earliest wrong step; None also where the judge does not say which."""
    flawed: bool | None = None
    """Whether an error was found; None without a verdict."""
    critique: str = ""
    """What the judge wrote."""
    num_steps: int = 0
    """Steps of the solution."""
    critique_tokens: int = 0
    """Length of the critique; 0 where unknown."""
    reason: str = ""
    """Why there is no verdict, or why the row or its answer could not be read."""


@dataclass
class Tally:
    """Counts of what came out."""

    by_source: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Source -> rows, correct, asked, unparsable, failed, judged and flawed (of the correct), wrong_judged,
    wrong_flagged, undecided (answers that could not be compared)."""
    fifths: Counter[int] = field(default_factory=Counter)
    """Errors found in correct solutions, by the part of the solution they are in."""
    bad: list[str] = field(default_factory=list)
    """What is wrong with rows that make no sense; the first few."""
    num_bad: int = 0
    """All rows that make no sense."""
    num_repeated: int = 0
    """Rows with the id of an earlier one."""

    def add(self, row: Audited) -> None:
        """Count one row of the output that makes sense."""
        undecided = not row.correct and row.reason and row.status in ("ok", "skipped")
        marks = {
            "rows": True,
            "correct": row.correct,
            "asked": row.status != "skipped",
            "unparsable": row.status == "unparsable",
            "failed": row.status == "failed",
            "judged" if row.correct else "wrong_judged": row.status == "ok",
            "flawed" if row.correct else "wrong_flagged": row.flawed,
            "undecided": undecided,
        }
        self.by_source[row.source].update(name for name, true in marks.items() if true)
        if row.correct and row.error_step is not None:
            self.fifths[int((row.error_step + 0.5) / row.num_steps * len(FIFTHS))] += 1

    def add_bad(self, reason: str) -> None:
        """Count a row that makes no sense."""
        self.num_bad += 1
        self.bad += [reason] if len(self.bad) < NUM_SHOWN else []

    @property
    def total(self) -> Counter[str]:
        """The counts over all sources."""
        return sum(self.by_source.values(), Counter())


def print_tally(tally: Tally, console: Console) -> None:
    """Accuracy and FP ratio by source, where the errors are, and what a reader should know about the rows."""
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("source", overflow="fold", min_width=12)
    for heading in ("accuracy", "flawed", "FP ratio", "unparsable", "failed"):
        table.add_column(heading, justify="right", no_wrap=True)
    for source, counts in sorted(tally.by_source.items()):
        table.add_row(Text(escape(source)), *_cells(counts))
    if len(tally.by_source) > 1:
        table.add_section()
        table.add_row("all", *_cells(tally.total))
    console.print(table)
    if tally.fifths:
        console.print("where in flawed correct solutions the first error is:")
        num = tally.fifths.total()
        for part, name in enumerate(FIFTHS):
            share = tally.fifths[part] / num
            console.print(
                f"  {name:<12} {'█' * round(40 * share):<40} {share:6.1%}  {tally.fifths[part]}", highlight=False
            )
    for note in _notes(tally):
        console.print(f"- {note}", highlight=False, markup=False, soft_wrap=True)


def _cells(counts: Counter[str]) -> list[str]:
    """Counts and shares; FP ratio with its 95 % interval; unparsable and failed as shares of what was asked."""
    return [
        f"{percent(ratio(counts['correct'], counts['rows']))} of {counts['rows']}",
        f"{counts['flawed']}/{counts['judged']}",
        percent(fp_ratio(counts["flawed"], counts["judged"]), wilson_interval(counts["flawed"], counts["judged"])),
        percent(ratio(counts["unparsable"], counts["asked"])),
        percent(ratio(counts["failed"], counts["asked"])),
    ]


def _notes(tally: Tally) -> list[str]:
    counts = tally.total
    notes = ["FP ratio: flawed / judged, of the correct solutions, with its 95 % interval (Wilson)"]
    if counts["wrong_judged"]:
        share = percent(ratio(counts["wrong_flagged"], counts["wrong_judged"]))
        notes.append(f"of {counts['wrong_judged']} judged solutions with a wrong answer, {share} were found flawed")
    if counts["unparsable"] > 0.1 * counts["asked"]:
        notes.append("many unparsable verdicts: critiques may be cut off; raise --max-tokens, or look at `reason`")
    if counts["undecided"]:
        notes.append(f"{counts['undecided']} answers could not be compared and count as wrong; see `reason`")
    if tally.num_repeated:
        notes.append(f"{tally.num_repeated} rows have the id of an earlier row")
    if tally.num_bad:
        notes.append(f"{tally.num_bad} rows were left out:")
        notes += [f"  {reason}" for reason in tally.bad]
        notes += ["  ..."] if tally.num_bad > len(tally.bad) else []
    return notes
