"""The page of an audit: one HTML file about the solutions that `fapo judge` has read."""

from __future__ import annotations

import itertools
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter, ValidationError

from fapo.data.files import check_not_overwriting, write_text
from fapo.data.jsonl import read_jsonl
from fapo.data.solutions import BadRow, Solution, read_solutions, reference_lookup
from fapo.errors import ConfigError, DataError
from fapo.evaluation.audit.counts import FIFTHS, AuditCounts, AuditRow
from fapo.evaluation.audit.error_kinds import ErrorKind, error_kind
from fapo.evaluation.audit.settings import AuditSettings
from fapo.evaluation.intervals import Interval
from fapo.evaluation.judge_benchmarks.predictions import MISSING, read_predictions
from fapo.evaluation.judge_settings import judge_name
from fapo.evaluation.metrics import fp_ratio
from fapo.judge.from_config import step_rule
from fapo.judge.quality import ratio
from fapo.judge.verdicts import verdict_row
from fapo.report.agreement import Agreement, Finding, agreement
from fapo.report.browser import BROWSER, Browser
from fapo.report.human_review import compare_labels, read_labels
from fapo.report.render import render
from fapo.report.rollouts import LIMIT, ShownRollout, pack, sampling_rate, shown_steps
from fapo.report.text import visible
from fapo.types import rollout_class

RUN = "audit"
"""Name of the run in the labels that such a page exports."""
_ROW = TypeAdapter(AuditRow)


@dataclass(frozen=True)
class SourceLine:
    """Line of the table of sources."""

    source: str
    """Name of the source."""
    num_rows: int
    """Number of solutions."""
    accuracy: float
    """Rate of solutions with a correct final answer."""
    num_judged: int
    """Number of correct solutions with a verdict."""
    num_flawed: int
    """Number of those that are flawed."""
    fp_ratio: float
    """Flawed / judged; NaN if there is none."""
    interval: Interval
    """95 % interval of the FP ratio; over problems where these repeat."""
    missing_rate: float
    """Rate of judgements without a verdict."""


@dataclass(frozen=True)
class Bar:
    """One bar of a chart of counts."""

    name: str
    """Name of the class that is counted."""
    num: int
    """Number of solutions."""
    rate: float
    """Fraction of all bars."""


def check_inputs(settings: AuditSettings, out: Path, second: Path | None, human: Path | None) -> None:
    """Check what the page of an audit needs, before anything is judged.

    Args:
        settings: Settings of the audit.
        out: File of the page.
        second: Verdicts of another judge on the same solutions: an output of `fapo judge`, or predictions.
        human: File of labels made by hand.

    Raises:
        ConfigError: The solutions come from standard input, or the page would overwrite a file.
        DataError: The verdicts of the second judge or the labels cannot be read.
    """
    if "-" in settings.files:
        raise ConfigError("--report reads the solutions twice: write them to a file, and give that instead of -")
    check_not_overwriting(settings.out, [path for path in (second, human) if path])
    check_not_overwriting(out, [settings.cache_beside(settings.out)])
    inputs: list[str | Path] = [*settings.files, settings.references, settings.out, second or "", human or ""]
    if out.resolve() in {Path(name).resolve() for name in inputs if str(name)}:
        raise ConfigError(f"{out}: --report is another file of this command; give it another name")
    if second:
        if not second.is_file():
            raise DataError(
                f"{second}: no such file; give verdicts on the same files, such as an output of `fapo judge`"
            )
        for _ in _second_rows(settings, second):
            pass
    if human:
        read_labels(human)


class WrittenAudit(NamedTuple):
    """A page about an audit."""

    path: Path
    """File of the page."""
    judges: Agreement | None
    """Agreement of the judge with the second one on the correct solutions; None without a second judge."""
    by_hand: Sequence[Agreement]
    """Agreement of the judge with labels made by hand; empty without such labels."""


def write_audit(
    settings: AuditSettings,
    out: Path,
    *,
    second: Path | None = None,
    human: Path | None = None,
    num_shown: int = LIMIT,
) -> WrittenAudit:
    """Write the page of an audit that is done.

    Args:
        settings: Settings of the audit; its solutions and its output are read.
        out: File of the page.
        second: Verdicts of another judge on the same solutions: an output of `fapo judge`, or predictions.
        human: File of labels that were made by hand on such a page.
        num_shown: Approximate limit of the number of solutions in the browser.

    Returns:
        The page, and how far the judge agrees with the second one and with the labels.

    Raises:
        DataError: A file of verdicts does not belong to these solutions, or the labels cannot be read.
    """
    verdicts, files = settings.out, settings.files
    rate = sampling_rate([verdicts], num_shown, filter(Path.is_file, map(Path, files)))
    counts, kinds = AuditCounts(), Counter[ErrorKind]()
    pairs: list[tuple[Finding, Finding]] = []
    problems: list[int] = []
    num_silent = 0
    shown, labelled = [], []
    labels = read_labels(human) if human else None
    wanted = {(label.split, label.problem_id) for label in labels.labels} if labels else set()
    for solution, row, other in _joined(settings, second, counts):
        counts.add(row, solution.problem.text)
        kind: ErrorKind | None = None
        if row.flawed:
            kind = error_kind(row.critique, row.error_step)
            kinds.update([kind] if row.correct else [])
        if other and row.correct:
            if row.flawed is None or other.flawed is None:
                num_silent += 1
            else:
                pairs.append(((row.flawed, row.error_step), (other.flawed, other.error_step)))
                problems.append(hash(solution.problem.text))
        chosen = rate >= 1 or zlib.crc32(solution.problem.id.encode("utf-8", "replace")) < rate * 2**32
        key = visible(row.source, 200), visible(row.id, 200)
        if chosen or key in wanted:
            rollout = _shown(solution, row, other, kind)
            shown += [rollout] if chosen else []
            labelled += [rollout] if key in wanted else []
    by_hand: Sequence[Agreement] = ()
    if human and labels:
        by_hand = compare_labels(human, labels, _numbered(labelled), "give the files that the labels were made from")
    judges = agreement("judge and second judge", pairs, problems, num_silent) if second else None
    packed = pack(list(_numbered(shown)))
    text = render(
        "audit.html.jinja",
        BROWSER if shown else (),
        title=f"Audit of {', '.join(Path(name).name for name in files)}"[:200],
        judge=judge_name(settings.judge_config()),
        files=files,
        day=date.today().isoformat(),
        sources=[_line(source, found, counts.interval(source)) for source, found in sorted(counts.by_source.items())],
        all=_line("all", counts.total, counts.interval()),
        over_problems=counts.repeats_problems,
        total=counts.total,
        bad=counts.num_bad,
        notes=counts.verdicts.notes(),
        fifths=_bars({name: counts.fifths[i] for i, name in enumerate(FIFTHS)}),
        kinds=_bars(dict(kinds.most_common())),
        second=judges,
        by_hand=by_hand,
        browser=Browser(packed, len(shown), rate) if shown else None,
    )
    write_text(out, text)
    return WrittenAudit(out, judges, by_hand)


def _solutions(settings: AuditSettings) -> Iterator[Solution | BadRow]:
    """Yield the solutions that an audit has read, in the same order."""
    rule = step_rule(settings.judge_config())
    lookup = reference_lookup(settings.references) if settings.references else None
    for name in settings.files:
        yield from read_solutions(name, references=lookup, steps=rule)


def read_verdicts(path: Path) -> Iterator[AuditRow]:
    """Yield the rows of an output of `fapo judge`; raise DataError for any other file."""
    for number, row in enumerate(read_jsonl(path), 1):
        try:
            yield _ROW.validate_python(row)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the row"
            raise DataError(f"{path}:{number}: {where}: {first['msg']}; give an output of `fapo judge`") from None


def _second_rows(settings: AuditSettings, path: Path) -> Iterator[AuditRow]:
    """Yield the verdicts of a second judge in the order of the solutions.

    Args:
        settings: Settings of the audit.
        path: Output of `fapo judge`; or predictions {id, error_step, ...} in any order, as `fapo bench` writes them.

    Yields:
        One row for each row of an output of `fapo judge`; for predictions, one row for each solution.

    Raises:
        DataError: A row is neither, a prediction is about no solution of the audit, or several solutions have one id.
    """
    if (first := next(iter(read_jsonl(path)), None)) is None or "num_steps" in first:
        yield from read_verdicts(path)
        return
    num_steps: dict[str, int] = {}
    for row in _solutions(settings):
        if not isinstance(row, Solution):
            continue
        if str(row.id) in num_steps:
            raise DataError(
                f"{path}: its verdicts are found by their ids, but several solutions have the id {row.id!r}; give an "
                "output of `fapo judge` on these files, or solutions with ids of their own"
            )
        num_steps[str(row.id)] = len(row.steps)
    predictions = read_predictions(path, num_steps)
    for solution in _solutions(settings):
        if not isinstance(solution, Solution):
            yield AuditRow(None, "", None, "skipped")
            continue
        found = predictions.get(str(solution.id))
        verdict = (found and found.verdict) or MISSING
        columns = verdict_row(verdict)
        yield AuditRow(solution.id, solution.problem.source, None, num_steps=len(solution.steps), **columns)


def _joined(
    settings: AuditSettings, second: Path | None, counts: AuditCounts
) -> Iterator[tuple[Solution, AuditRow, AuditRow | None]]:
    """Yield each readable solution with its row, and with that of a second judge; count the others."""
    solutions = _solutions(settings)
    files = [settings.out, second] if second else [settings.out]
    others = [_second_rows(settings, second)] if second else []
    rows = itertools.zip_longest(read_verdicts(settings.out), *others)
    for index, (solution, found) in enumerate(itertools.zip_longest(solutions, rows), 1):
        for path, row in zip(files, found or [None] * len(files), strict=True):
            if (solution is None) is not (row is None):
                counted = "more rows than solutions" if solution is None else "fewer rows than solutions"
                raise DataError(f"{path}: there are {counted}; judge the same files again")
            if isinstance(solution, Solution) and row.id != solution.id:
                raise DataError(
                    f"{path}: row {index} is about {row.id!r}, but the solution is {solution.id!r}; "
                    "judge the same files again"
                )
        if isinstance(solution, Solution):
            yield solution, found[0], found[1] if second else None
        elif isinstance(solution, BadRow):
            counts.add_bad(solution.reason)


def _shown(solution: Solution, row: AuditRow, other: AuditRow | None, kind: ErrorKind | None) -> ShownRollout:
    """Return a solution as the browser shows it, with sample 0."""
    correct = bool(row.correct)
    return ShownRollout(
        run=RUN,
        split=visible(row.source, 200),
        step=0,
        problem_id=visible(row.id, 200),
        sample=0,
        problem=visible(solution.problem.text, 4000),
        reference=visible(solution.problem.reference, 400),
        steps=shown_steps(solution.steps),
        kind=rollout_class(correct, row.flawed),
        status=row.status,
        flagged=row.flawed,
        judged=row.error_step,
        critique=visible(row.critique or row.reason, 50_000),
        known=False,
        true=None,
        flaw="",
        reward=None,
        advantage=None,
        num_tokens=0,
        correct=correct,
        error_kind=kind or "",
        second=other.flawed if other else None,
        second_step=other.error_step if other else None,
    )


def _numbered(shown: Iterable[ShownRollout]) -> Iterator[ShownRollout]:
    """Yield rollouts with the number of each among those of the same id and source."""
    seen: Counter[tuple[str, str]] = Counter()
    for rollout in shown:
        key = rollout.split, rollout.problem_id
        yield replace(rollout, sample=seen[key])
        seen[key] += 1


def _line(source: str, counts: Counter[str], interval: Interval) -> SourceLine:
    """Return the line of one source."""
    judged, flawed, requested = counts["judged"], counts["flawed"], counts["requested"]
    return SourceLine(
        source,
        counts["rows"],
        ratio(counts["correct"], counts["rows"]),
        judged,
        flawed,
        fp_ratio(flawed, judged),
        interval,
        ratio(counts["unparsable"] + counts["failed"], requested),
    )


def _bars(counts: Mapping[str, int]) -> list[Bar]:
    """Return the bars of a chart; none if nothing was counted."""
    total = sum(counts.values())
    return [Bar(name, num, num / total) for name, num in counts.items()] if total else []
