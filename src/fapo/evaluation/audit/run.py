"""Audit of solutions: check the final answers, judge the solutions with a correct one, write a row for each."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path

from fapo.config.schema import CascadeJudge, ModelJudge
from fapo.data.files import atomic_path, check_jsonl_name, check_not_overwriting
from fapo.data.jsonl import write_jsonl
from fapo.data.solutions import BadRow, Solution, read_solutions, reference_lookup
from fapo.errors import ConfigError, DataError
from fapo.evaluation.audit.counts import NOT_COMPARED, AuditCounts, AuditRow
from fapo.evaluation.audit.settings import AuditSettings
from fapo.judge.asking import AskingJudge
from fapo.judge.cascade import Cascade
from fapo.judge.circuit_breaker import CircuitBreaker, repeat_command
from fapo.judge.from_config import open_judge, step_rule
from fapo.judge.verdicts import verdict_row
from fapo.rewards.checkers import AnswerChecker, make_checker
from fapo.rewards.scorer import checker_breaker
from fapo.rewards.verify import Check
from fapo.types import Progress, Rollout, Verdict

_Counted = tuple[AuditRow, str]
"""A row of the output, and the text of its problem."""
WINDOW_SERVED = 16
"""Number of rows that are checked and judged together, by a served judge; several windows are under way at once."""
WINDOW_LOCAL = 64
"""Number of rows that are checked and judged together, by a model in this process; one window at a time."""


def audit(settings: AuditSettings, progress: Progress = lambda *_: None) -> AuditCounts:
    """Check and judge solutions, and write one row for each of them, in order.

    All rows are checked before the judge gets its first request. The output file appears when it is complete; until
    then its rows are in a file with ".part" added to the name. An audit that was interrupted and is started again
    judges only what its cache does not hold. Of each row only hashes of its id and its problem stay in memory.

    Args:
        settings: Solutions, judge and output file.
        progress: Callback for the number of rows that are done.

    Returns:
        Counts of what came out.

    Raises:
        ConfigError: No file is given, the output file is one of the input files or has the name of another format, or
            the checker cannot be used.
        DataError: A row cannot be read (unless `skip_bad`), or no row can be judged.
        JudgeDownError: The judge fails for too many rows, or for all of them.
        EngineError: A checker of the user fails for too many rows.
    """
    if not settings.files:
        raise ConfigError("no file given: fapo judge FILE --judge URL --model NAME --out OUT.jsonl; FILE - is stdin")
    cache = settings.cache_beside(settings.out)
    check_not_overwriting(settings.out, (*settings.files, settings.references, cache))
    check_jsonl_name(settings.out)
    config = settings.judge_config(cache)
    rule, check = step_rule(config), make_checker(settings.checker, require_box=settings.require_box)
    lookup = reference_lookup(settings.references) if settings.references else None
    with tempfile.TemporaryDirectory() as folder:
        files = {name: _as_file(name, Path(folder)) for name in dict.fromkeys(settings.files)}
        result = AuditCounts(rule)

        def rows() -> Iterator[Solution | BadRow]:
            for name in settings.files:
                alias = "stdin" if name == "-" else ""
                yield from read_solutions(files[name], name=alias, references=lookup, steps=rule)

        num_rows = _check_rows(rows(), settings, result)

        async def judged() -> None:
            async with open_judge(config, use_cache=not settings.no_cache) as judge:
                await _Audit(settings, config, judge, check, result, num_rows, progress).run(rows())
                result.usage = judge.usage.total

        asyncio.run(judged())
    return result


def _as_file(name: str, folder: Path) -> Path:
    """Return the path of a file; standard input is copied into `folder` first, since it is read twice."""
    if name != "-":
        return Path(name)
    if sys.stdin is None:
        raise ConfigError("-: standard input is closed; give a file, or send the rows through a pipe")
    with (folder / "stdin.jsonl").open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return folder / "stdin.jsonl"


def _check_rows(rows: Iterator[Solution | BadRow], settings: AuditSettings, result: AuditCounts) -> int:
    """Return the number of rows; count unreadable ones, or raise DataError for the first of them."""
    num, ids = 0, set[int]()
    for row in rows:
        num += 1
        if isinstance(row, Solution):
            result.num_repeated += (
                hash(row.problem.id) in ids
            )  # ids are texts here; the numbers -1 and -2 would have one hash
            ids.add(hash(row.problem.id))
        elif settings.skip_bad:
            result.add_bad(row.reason)
        else:
            raise DataError(f"{row.reason} (--skip-bad reports such rows and continues)")
    if not num:
        raise DataError(f"{', '.join(settings.files)} is empty; give a file with at least one row")
    if num == result.num_bad:
        why = f"; {result.bad[0]}" if result.bad else ""
        raise DataError(f"{', '.join(settings.files)}: no row can be judged{why}")
    return num


@dataclass
class _Audit:
    """One pass over the rows."""

    settings: AuditSettings
    """Settings of the audit."""
    config: ModelJudge | CascadeJudge
    """Settings of the judge."""
    judge: AskingJudge | Cascade
    """Opened judge."""
    check: AnswerChecker
    """Checker of the answers."""
    result: AuditCounts
    """Counts of the rows that are done."""
    num_rows: int
    """Number of all rows."""
    progress: Progress
    """Callback for the number of rows that are done."""
    done: int = 0
    """Number of rows that are judged, or need no judgement."""
    num_judged: int = 0
    """Number of rows among them that are judged."""
    num_failed: int = 0
    """Number of rows among them on which the judge failed."""

    def __post_init__(self) -> None:
        self.breaker = CircuitBreaker(remedy=repeat_command(self.config.cache))
        self.checker_breaker = checker_breaker(self.config.max_failure_rate)

    async def run(self, rows: Iterator[Solution | BadRow]) -> None:
        """Judge windows of rows, several at once, and write them in order."""
        out = self.settings.out.resolve()
        with atomic_path(out, out.with_name(f"{out.name}.part")) as draft:
            write_jsonl(draft, [])
            self.advance(0)
            size, ahead = WINDOW_LOCAL, 1
            if num_requests := self.config.num_requests:
                size = WINDOW_SERVED
                ahead = max(2, 4 * num_requests // size)
            pending: deque[asyncio.Task[list[_Counted]]] = deque()
            try:
                while window := list(islice(rows, size)):
                    pending.append(asyncio.create_task(self.window(window)))
                    if len(pending) >= ahead:
                        await self.finish(draft, pending)
                while pending:
                    await self.finish(draft, pending)
                self.result.verdicts.require_answers()
            finally:
                for task in pending:
                    task.cancel()
                await asyncio.gather(*pending, return_exceptions=True)

    async def finish(self, draft: Path, pending: deque[asyncio.Task[list[_Counted]]]) -> None:
        """Wait for the oldest window and write it."""
        # Shielded, because an interrupt must reach all windows at once. If it cancelled the oldest window first, other
        # windows would take over its free request slots, be cancelled in turn, and repeat their requests next time.
        rows = await asyncio.shield(pending[0])
        pending.popleft()
        self.write(draft, rows)

    async def window(self, rows: Sequence[Solution | BadRow]) -> list[_Counted]:
        """Check and judge a window of rows."""
        solutions = [row for row in rows if isinstance(row, Solution)]
        found = await self.check([Rollout(s.problem, s.text) for s in solutions if s.correct is None])
        self.checker_breaker.record([check.failure for check in found])
        checks = iter(found)
        checked = [next(checks) if s.correct is None else Check(s.correct, None, "ok") for s in solutions]
        requested = [
            i for i, check in enumerate(checked) if check.correct or (self.settings.all and not check.unscored)
        ]
        self.advance(len(rows) - len(requested))
        # a call for each solution, so that the bar moves with each answer; a model in this process needs them together
        size = 1 if self.config.num_requests else WINDOW_LOCAL
        calls = [requested[start : start + size] for start in range(0, len(requested), size)]
        judged = await asyncio.gather(*(self.verdicts([solutions[i] for i in call]) for call in calls))
        verdicts = dict(zip(requested, chain.from_iterable(judged), strict=True))
        out = iter([(self.output_row(s, checked[i], verdicts.get(i)), s.problem.text) for i, s in enumerate(solutions)])
        return [next(out) if isinstance(row, Solution) else (_skipped_row(row), "") for row in rows]

    async def verdicts(self, solutions: Sequence[Solution]) -> list[Verdict]:
        """Return the verdicts on solutions, from one call of the judge."""
        found = await self.judge.judge_steps([(solution.problem, solution.steps) for solution in solutions])
        self.num_judged += len(found)
        self.num_failed += sum(verdict.status == "failed" for verdict in found)
        self.advance(len(found))
        return found

    def advance(self, num: int) -> None:
        """Report that `num` more rows are judged, or need no judgement."""
        self.done += num
        metrics = {"judged": self.num_judged, "failed": self.num_failed, **self.judge.usage.progress_metrics}
        self.progress("judge", self.done, self.num_rows, metrics)

    def output_row(self, solution: Solution, check: Check, verdict: Verdict | None) -> AuditRow:
        """Return the row of the output for a solution."""
        columns = verdict_row(verdict)
        columns["reason"] = columns["reason"] or (f"{NOT_COMPARED}{check.detail}" if check.undecided else "")
        return AuditRow(
            id=solution.id,
            source=solution.problem.source,
            correct=check.correct,
            num_steps=len(solution.steps),
            **columns,
        )

    def write(self, draft: Path, counted: Sequence[_Counted]) -> None:
        """Write and count finished rows; raise JudgeDownError if the judge fails for too many of them."""
        rows = [row for row, _ in counted]
        optional = ("scores", "flag_rate", "flag_probability", "all_tokens", "given_by")
        out = [
            {name: value for name, value in asdict(row).items() if value is not None or name not in optional}
            for row in rows
        ]
        write_jsonl(draft, out, append=True)
        for row, problem in counted:
            if row.correct is not None:
                self.result.add(row, problem)
        self.breaker.record([row.reason if row.status == "failed" else "" for row in rows if row.status != "skipped"])


def _skipped_row(row: BadRow) -> AuditRow:
    """Return the row of the output for a row that cannot be read."""
    return AuditRow(None, "", None, "skipped", reason=row.reason)
