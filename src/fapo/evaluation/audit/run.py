"""Audit reasoning: check the final answers of solutions, judge those that are right, write a verdict for each row."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from fapo.config.schema import ModelJudge, ServedJudge
from fapo.data.files import atomic_path
from fapo.data.jsonl import write_jsonl
from fapo.data.problems import check_not_overwriting
from fapo.data.solutions import BadRow, Solution, read_solutions, reference_lookup
from fapo.errors import ConfigError, DataError
from fapo.evaluation.audit.counts import Audited, Tally
from fapo.judge.from_config import opened
from fapo.judge.genrm import CircuitBreaker, GenRM, start_again, verdict_row
from fapo.rewards import verify as answers
from fapo.types import Verdict

WINDOW_SERVED = 16
"""Rows checked and judged together; several windows are under way at once."""
WINDOW_LOCAL = 64
"""The same for a model in this process, which takes one window after the other."""

Progress = Callable[[int, int, str], None]
"""Progress callback, called with (rows_done, total_rows, text) as rows are finished."""


@dataclass(frozen=True)
class Plan:
    """What is audited and how."""

    files: tuple[str, ...]
    """JSONL, JSON or Parquet files, or Hugging Face ids; "-" is JSONL from standard input."""
    out: Path
    """JSONL file for the verdicts."""
    judge: ModelJudge
    """Who judges; with its cache an interrupted audit goes on."""
    judge_all: bool = False
    """Judge solutions with a wrong final answer, too."""
    fresh: bool = False
    """Ask anew what is in the cache."""
    skip_bad: bool = False
    """Report rows that make no sense and go on, instead of stopping before anything is asked."""
    require_box: bool = False
    r"""Only a \\boxed{} is a final answer; not "the answer is 7", nor a last number."""
    references: str = ""
    """Data set to look up right answers in, by the text of the problem, for rows that do not have them."""


def audit(plan: Plan, progress: Progress | None = None) -> Tally:
    """Write a row to plan.out for each row of the files, in order; memory does not grow with them.

    All rows are checked before anything is asked. plan.out appears when it is complete; while the audit runs, its rows
    are in a file with ".part" added to the name. Started again after an interrupt, the judge is asked only what its
    cache does not hold.

    Raises DataError for rows that make no sense (unless skip_bad) and JudgeDownError if the judge is down.
    """
    if not plan.files:
        raise ConfigError("no file given: fapo judge FILE --judge URL --model NAME --out OUT.jsonl; FILE - is stdin")
    check_not_overwriting(plan.out, (*plan.files, plan.references))
    lookup = reference_lookup(plan.references) if plan.references else None
    with tempfile.TemporaryDirectory() as folder:
        files = {name: _spooled(name, Path(folder)) for name in dict.fromkeys(plan.files)}
        tally = Tally()

        def rows() -> Iterator[Solution | BadRow]:
            for name in plan.files:
                yield from read_solutions(files[name], name="stdin" if name == "-" else "", references=lookup)

        num_rows = _look_through(rows(), plan, tally)

        async def judged() -> None:
            async with opened(plan.judge, fresh=plan.fresh) as judge:
                await _Audit(plan, judge, tally, num_rows, progress).run(rows())

        asyncio.run(judged())
    return tally


def _spooled(name: str, folder: Path) -> Path:
    """Standard input as a file, since it is read twice; any other name as it is."""
    if name != "-":
        return Path(name)
    with (folder / "stdin.jsonl").open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return folder / "stdin.jsonl"


def _look_through(rows: Iterator[Solution | BadRow], plan: Plan, tally: Tally) -> int:
    """Number of rows. Raises DataError for the first that makes no sense, unless these are to be skipped."""
    num, ids = 0, set[int]()
    for row in rows:
        num += 1
        if isinstance(row, Solution):
            tally.num_repeated += hash(row.problem.id) in ids  # as text: -1 and -2 have one hash
            ids.add(hash(row.problem.id))
        elif plan.skip_bad:
            tally.add_bad(row.reason)
        else:
            raise DataError(f"{row.reason} (--skip-bad reports such rows and continues)")
    if num == tally.num_bad:
        why = f"; {tally.bad[0]}" if tally.bad else ""
        raise DataError(f"{', '.join(plan.files)}: no rows that can be judged{why}")
    return num


@dataclass
class _Audit:
    """One pass over the rows."""

    plan: Plan
    """What is asked for."""
    judge: GenRM
    """Who judges."""
    tally: Tally
    """What came out so far."""
    num_rows: int
    """Rows in all."""
    progress: Progress | None
    """Callback for the progress, None for none."""
    done: int = 0
    """Rows written."""

    def __post_init__(self) -> None:
        self.breaker = CircuitBreaker(remedy=start_again(self.plan.judge.cache))

    async def run(self, rows: Iterator[Solution | BadRow]) -> None:
        """Windows of rows, several at once, written in order."""
        with atomic_path(self.plan.out, self.plan.out.with_name(f"{self.plan.out.name}.part")) as draft:
            write_jsonl(draft, [])
            size, ahead = WINDOW_LOCAL, 1
            if isinstance(self.plan.judge, ServedJudge):
                size = WINDOW_SERVED
                ahead = max(2, 4 * self.plan.judge.concurrency // size)
            pending: deque[asyncio.Task[list[Audited]]] = deque()
            try:
                while window := list(islice(rows, size)):
                    pending.append(asyncio.create_task(self.window(window)))
                    if len(pending) >= ahead:
                        await self.finish(draft, pending)
                while pending:
                    await self.finish(draft, pending)
            finally:
                for task in pending:
                    task.cancel()
                await asyncio.gather(*pending, return_exceptions=True)

    async def finish(self, draft: Path, pending: deque[asyncio.Task[list[Audited]]]) -> None:
        """Wait for the oldest window and write it.

        Shielded: an interrupt must reach all windows at once. If it went through the oldest alone, the slots that this
        one gives back would let others begin what is then cancelled, and asked a second time.
        """
        rows = await asyncio.shield(pending[0])
        pending.popleft()
        self.write(draft, rows)

    async def window(self, rows: Sequence[Solution | BadRow]) -> list[Audited]:
        """Check and judge some rows."""
        solutions = [row for row in rows if isinstance(row, Solution)]
        pairs = [(s.text, s.problem.reference) for s in solutions if s.correct is None]
        checks = iter(await answers.acheck_many(pairs, require_box=self.plan.require_box))
        checked = [next(checks) if s.correct is None else answers.Check(s.correct, None, "ok") for s in solutions]
        asked = [i for i, check in enumerate(checked) if check.correct or self.plan.judge_all]
        judged = await self.judge.judge_steps([(solutions[i].problem, solutions[i].steps) for i in asked])
        verdicts = dict(zip(asked, judged, strict=True))
        out = iter([self.audited(s, checked[i], verdicts.get(i)) for i, s in enumerate(solutions)])
        return [next(out) if isinstance(row, Solution) else _skipped(row) for row in rows]

    def audited(self, solution: Solution, check: answers.Check, verdict: Verdict | None) -> Audited:
        """The row of the output."""
        undecided = check.status in ("timeout", "error")
        columns = verdict_row(verdict)
        columns["reason"] = columns["reason"] or (f"answer not compared: {check.detail}" if undecided else "")
        return Audited(
            id=solution.id,
            source=solution.problem.source,
            correct=check.correct,
            num_steps=len(solution.steps),
            **columns,
        )

    def write(self, draft: Path, rows: Sequence[Audited]) -> None:
        """Write and count finished rows. Raises JudgeDownError when nothing but failures comes back."""
        write_jsonl(draft, rows, append=True)
        for row in rows:
            if row.correct is not None:
                self.tally.add(row)
        self.breaker.record([row.reason if row.status == "failed" else "" for row in rows if row.status != "skipped"])
        self.done += len(rows)
        if self.progress:
            counts = self.tally.total
            self.progress(self.done, self.num_rows, f"judged {counts['asked']}  failed {counts['failed']}")


def _skipped(row: BadRow) -> Audited:
    return Audited(None, "", None, "skipped", reason=row.reason)
