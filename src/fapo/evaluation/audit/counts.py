"""Results of an audit: the rows of its output, their counts, and the printed tables."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any, Literal

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fapo.data.jsonl import finite
from fapo.data.untrusted_text import escape
from fapo.evaluation.intervals import Interval, grouped_rate_interval, percent
from fapo.evaluation.metrics import fp_ratio
from fapo.inference.usage import Prices, Usage
from fapo.judge.quality import ratio
from fapo.judge.verdict_counts import VerdictCounts
from fapo.types import StepRule, Verdict

FIFTHS = ("first fifth", "second", "middle", "fourth", "last fifth")
"""Names of the parts of a solution, each with a fifth of its steps; the middle of a step decides its part."""
NOT_COMPARED = "answer not compared: "
"""Beginning of the reason of a row with an answer that could not be compared, unless the verdict has a reason."""
NUM_SHOWN = 5
"""Maximum number of unreadable rows that are named."""


@dataclass(frozen=True)
class AuditRow:
    """One row of the output."""

    id: str | int | float | None
    """Id of the input row; None for a row that cannot be read."""
    source: str
    """Source that the input row names, or the name of its file."""
    correct: bool | None
    """Whether the final answer is correct; None for a row that cannot be read."""
    status: Literal["ok", "unparsable", "failed", "skipped"]
    """Status of the verdict; skipped for a row that was not judged."""
    error_step: int | None = None
    """Index (from 0) of the first wrong step; None without an error, or where the judge names no step."""
    flawed: bool | None = None
    """Whether the judge found an error; None without a verdict."""
    critique: str = ""
    """Text that the judge wrote."""
    num_steps: int = 0
    """Number of steps of the solution."""
    critique_tokens: int = 0
    """Length of the critique in tokens; 0 where it is unknown."""
    reason: str = ""
    """Reason why the row has no verdict, or why the row or its answer could not be read."""
    scores: list[float] | None = None
    """Score of each step by a process reward model; None for other judges, and the file then has no such column."""
    flag_rate: float | None = None
    """Rate of the judge's votes that flag; None and no column without several votes."""
    flag_probability: float | None = None
    """Probability of a flaw by the log probabilities of the verdict's tokens; None and no column without them."""
    all_tokens: int | None = None
    """Length of all critiques behind the verdict in tokens; None and no column for a single critique."""
    given_by: Literal["cheap", "strong"] | None = None
    """Judge of a cascade that gave the verdict; None and no column for other judges."""


@dataclass
class AuditCounts:
    """Counts over the rows of an audit."""

    steps: StepRule = "paragraphs"
    """Rule by which the solutions were split into steps."""
    by_source: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Counts of each source. The keys are rows, correct, requested (verdicts), one_step, unparsable and failed (of
    requested), judged and flawed (of correct), wrong_judged, wrong_flagged, and undecided (answers that could not be
    compared)."""
    by_problem: dict[str, dict[int, tuple[int, int]]] = field(default_factory=lambda: defaultdict(dict))
    """Numbers of judged and of flawed correct solutions of each problem of a source, by the hash of its text."""
    fifths: Counter[int] = field(default_factory=Counter)
    """Number of errors in correct solutions of several steps, by index into FIFTHS."""
    bad: list[str] = field(default_factory=list)
    """Reasons why rows cannot be read, at most NUM_SHOWN."""
    num_bad: int = 0
    """Number of rows that cannot be read."""
    num_repeated: int = 0
    """Number of rows with the id of an earlier row."""
    verdicts: VerdictCounts = field(default_factory=VerdictCounts)
    """Counts of the verdicts, with the reasons of those that are missing."""
    usage: Usage = field(default_factory=Usage)
    """Tokens of the judge."""

    def add(self, row: AuditRow, problem: str) -> None:
        """Count one row of the output that could be read.

        Args:
            row: The row.
            problem: Text of its problem; solutions of one problem are not independent.
        """
        marks = {
            "rows": True,
            "correct": row.correct,
            "requested": row.status != "skipped",
            "one_step": row.status != "skipped" and row.num_steps == 1,
            "unparsable": row.status == "unparsable",
            "failed": row.status == "failed",
            "judged" if row.correct else "wrong_judged": row.status == "ok",
            "flawed" if row.correct else "wrong_flagged": row.flawed,
            "undecided": row.reason.startswith(NOT_COMPARED),
        }
        self.by_source[row.source].update(name for name, true in marks.items() if true)
        if row.correct and row.status == "ok":
            of_source, key = self.by_problem[row.source], hash(problem)
            judged, flawed = of_source.get(key, (0, 0))
            of_source[key] = judged + 1, flawed + bool(row.flawed)
        if row.correct and row.error_step is not None and row.num_steps > 1:
            self.fifths[int((row.error_step + 0.5) / row.num_steps * len(FIFTHS))] += 1
        if row.status != "skipped":
            self.verdicts.add(Verdict(row.status, row.flawed, row.error_step, row.critique, row.reason))

    def add_bad(self, reason: str) -> None:
        """Count a row that cannot be read."""
        self.num_bad += 1
        self.bad += [reason] if len(self.bad) < NUM_SHOWN else []

    @property
    def total(self) -> Counter[str]:
        """Counts over all sources."""
        return sum(self.by_source.values(), Counter())

    def interval(self, source: str | None = None) -> Interval:
        """Return the 95 % interval of the FP ratio of a source, or of all; it is over problems where these repeat."""
        judged, flawed = Counter[int](), Counter[int]()
        for name, problems in self.by_problem.items():
            for problem, counts in problems.items() if source in (None, name) else ():
                judged[problem] += counts[0]
                flawed[problem] += counts[1]
        return grouped_rate_interval(list(flawed.values()), list(judged.values()))

    @property
    def repeats_problems(self) -> bool:
        """Whether several judged solutions are of one problem."""
        return sum(map(len, self.by_problem.values())) < self.total["judged"]


def as_json(result: AuditCounts, prices: Prices | None = None) -> dict[str, Any]:
    """Return an audit for `--json`.

    Args:
        result: Counts of an audit.
        prices: Prices of the judge's tokens; None gives no cost.

    Returns:
        Numbers of all rows and of each source by name; a number that is not defined is None.
    """
    usage = {"usage": result.usage.as_json(prices)} if result.usage else {}
    return finite(
        {
            **_numbers(result.total, result.interval()),
            "sources": {
                source: _numbers(counts, result.interval(source)) for source, counts in sorted(result.by_source.items())
            },
            "error_fifths": [result.fifths[part] for part in range(len(FIFTHS))],
            "num_unreadable": result.num_bad,
            "num_repeated_ids": result.num_repeated,
            **usage,
        }
    )


def _numbers(counts: Counter[str], interval: Interval) -> dict[str, Any]:
    """Return the numbers of one source, or of all, with the interval of the FP ratio."""
    judged, flawed = counts["judged"], counts["flawed"]
    return {
        "n": counts["rows"],
        "num_correct": counts["correct"],
        "accuracy": ratio(counts["correct"], counts["rows"]),
        "num_judged": judged,
        "num_flawed": flawed,
        "fp_ratio": fp_ratio(flawed, judged),
        "fp_ratio_interval": interval,
        **{f"num_{name}": counts[name] for name in ("requested", "unparsable", "failed", "one_step", "undecided")},
        "num_wrong_judged": counts["wrong_judged"],
        "num_wrong_flagged": counts["wrong_flagged"],
    }


def print_counts(result: AuditCounts, console: Console, prices: Prices | None = None) -> None:
    """Print accuracy and FP ratio by source, the position of the errors, and notes on the rows.

    Args:
        result: Counts of an audit.
        console: Console to print to.
        prices: Prices of the judge's tokens; None prints no cost.
    """
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0))
    table.add_column("source", overflow="fold", min_width=12)
    for heading in ("accuracy", "flawed", "FP ratio", "unparsable", "failed"):
        table.add_column(heading, justify="right", no_wrap=True)
    for source, counts in sorted(result.by_source.items()):
        table.add_row(Text(escape(source)), *_cells(counts, result.interval(source)))
    if len(result.by_source) > 1:
        table.add_section()
        table.add_row("all", *_cells(result.total, result.interval()))
    console.print(table)
    if result.fifths:
        console.print("position of the first error in flawed solutions of several steps:")
        num = result.fifths.total()
        for part, name in enumerate(FIFTHS):
            rate = result.fifths[part] / num
            console.print(
                f"  {name:<12} {'█' * round(40 * rate):<40} {rate:6.1%}  {result.fifths[part]}", highlight=False
            )
    usage = [f"tokens of the judge: {result.usage.text(prices)}"] if result.usage else []
    for note in [*_notes(result), *usage]:
        console.print(f"- {note}", highlight=False, markup=False, soft_wrap=True)


def _cells(counts: Counter[str], interval: Interval) -> list[str]:
    """Return the cells of one source; the rates of unparsable and failed verdicts refer to the judge requests."""
    return [
        f"{percent(ratio(counts['correct'], counts['rows']))} of {counts['rows']}",
        f"{counts['flawed']}/{counts['judged']}",
        percent(ratio(counts["flawed"], counts["judged"]), interval),
        percent(ratio(counts["unparsable"], counts["requested"])),
        percent(ratio(counts["failed"], counts["requested"])),
    ]


def _notes(result: AuditCounts) -> list[str]:
    """Return what a reader should know about the numbers and the rows."""
    counts = result.total
    over = "over problems, since some have several solutions" if result.repeats_problems else "Wilson"
    notes = [f"FP ratio: flawed / judged, of the correct solutions, with its 95 % interval ({over})"]
    if counts["requested"]:
        rate = percent(ratio(counts["one_step"], counts["requested"]))
        may_divide = counts["one_step"] and result.steps == "paragraphs"
        hint = "; --steps lines divides those of several lines" if may_divide else ""
        notes.append(f"solutions of a single step: {rate} of {counts['requested']}{hint}")
    if counts["wrong_judged"]:
        rate = percent(ratio(counts["wrong_flagged"], counts["wrong_judged"]))
        notes.append(f"solutions with a wrong answer: {counts['wrong_judged']} judged, {rate} of them flawed")
    if counts["undecided"]:
        notes.append(f"{counts['undecided']} answers could not be compared and count as wrong; see `reason`")
    if result.num_repeated:
        notes.append(f"{result.num_repeated} rows have the id of an earlier row")
    if result.num_bad:
        notes.append(f"{result.num_bad} rows were left out:")
        notes += [f"  {reason}" for reason in result.bad]
        notes += ["  ..."] if result.num_bad > len(result.bad) else []
    return notes
