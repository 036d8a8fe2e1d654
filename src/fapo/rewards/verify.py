"""Checks of final answers: whether a solution's answer equals the reference, never longer than a deadline.

The rules are those of `fapo.data.final_answers`; `extract` is offered here too. What they leave to computer algebra runs in
worker processes that end at the deadline (`fapo.rewards.answer_workers`), so checks work from any thread and in an event loop.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fapo.data.final_answers import clean, decide, extract
from fapo.rewards.answer_workers import patience, shutdown, submit

__all__ = ["Check", "acheck", "acheck_many", "check_many", "extract", "shutdown"]

MAX_CHARS = 2000
"""Longest answer or reference, in characters, that is compared by more than string equality."""


@dataclass(frozen=True)
class Check:
    """The outcome of comparing one solution's final answer with the reference."""

    correct: bool
    """True only when the answer was shown to be equivalent."""
    answer: str | None
    """The extracted answer; None when the text has none."""
    status: Literal["ok", "no_answer", "timeout", "error"]
    """ok: decided; no_answer: nothing to compare; timeout: stopped at the deadline; error: could not be compared."""
    detail: str = ""
    """Why the answer could not be compared, or why it is wrong when that is not plain."""


# ---------------------------------------------------------------- public checks


def _triage(answer: str | None, reference: str) -> Check | tuple[str, str]:
    """A Check where exact rules decide; else the two cleaned answers that need computer algebra."""
    if answer is None:
        return Check(False, None, "no_answer", "no final answer")
    if answer.strip() == reference.strip():
        return Check(True, answer, "ok")
    if max(len(answer), len(reference)) > MAX_CHARS:
        return Check(False, answer, "error", f"longer than {MAX_CHARS} characters")
    told, wanted = clean(answer), clean(reference)
    decided = decide(told, wanted)
    return (told, wanted) if decided is None else Check(decided, answer, "ok")


def _outcome(answer: str, future: Any, deadline: float) -> Check:
    """Read one comparison of the pool (a concurrent or an asyncio future, finished or given up)."""
    if not future.done() or future.cancelled():
        return Check(False, answer, "timeout", "no worker took it in time")
    error = future.exception()
    if error is None:
        return Check(future.result(), answer, "ok")
    if isinstance(error, TimeoutError):
        return Check(False, answer, "timeout", f"stopped after {deadline:g} s")
    return Check(False, answer, "error", str(error))


@dataclass(frozen=True)
class _Batch:
    """Solutions on their way through the comparison; the same answer to the same reference is compared once."""

    answers: list[str | None]
    triaged: list[Check | tuple[str, str]]
    futures: dict[tuple[str, str], concurrent.futures.Future[bool]]
    deadline: float

    def checks(self, finished: dict[tuple[str, str], Any]) -> list[Check]:
        return [
            item if isinstance(item, Check) else _outcome(answer or "", finished[item], self.deadline)
            for answer, item in zip(self.answers, self.triaged, strict=True)
        ]


def _extracted(pairs: Sequence[tuple[str, str]], require_box: bool) -> tuple[list[str | None], list[str]]:
    return [extract(text, require_box=require_box) for text, _ in pairs], [reference for _, reference in pairs]


def _start(answers: Iterable[str | None], references: Iterable[str], deadline: float) -> _Batch:
    if not 0 < deadline < math.inf:
        raise ValueError(f"deadline must be a positive number of seconds, not {deadline!r}")
    answers = list(answers)
    triaged = [_triage(answer, reference) for answer, reference in zip(answers, references, strict=True)]
    jobs = dict.fromkeys(item for item in triaged if isinstance(item, tuple))
    return _Batch(answers, triaged, {job: submit(*job, deadline) for job in jobs}, deadline)


def _finish(batch: _Batch) -> list[Check]:
    try:
        concurrent.futures.wait(batch.futures.values(), timeout=patience(batch.deadline))
        return batch.checks(batch.futures)
    finally:
        for future in batch.futures.values():
            future.cancel()


def check_many(pairs: Sequence[tuple[str, str]], *, deadline: float = 5.0, require_box: bool = True) -> list[Check]:
    """Check (solution text, reference) pairs, in order and in parallel.

    Each comparison has `deadline` seconds of its own, counted from when a worker takes it; one that reaches it costs
    the others nothing but that worker. Units, degree and currency signs do not count: `5 cm` equals `5`. A choice
    letter is only ever compared as a letter. A list must have as many elements as the reference; order is free, but
    not within a tuple. Never raises for a text; ValueError for a deadline that is not positive.
    """
    return _finish(_start(*_extracted(pairs, require_box), deadline))


async def acheck_many(
    pairs: Sequence[tuple[str, str]], *, deadline: float = 5.0, require_box: bool = True
) -> list[Check]:
    """`check_many` without blocking the event loop. Cancelling it stops the comparisons."""
    batch = _start(*_extracted(pairs, require_box), deadline)
    waiting = {job: asyncio.wrap_future(future) for job, future in batch.futures.items()}
    try:
        if waiting:
            await asyncio.wait(waiting.values(), timeout=patience(deadline))
        return batch.checks(waiting)
    finally:
        for future in waiting.values():
            future.cancel()


async def acheck(prediction_text: str, reference: str, *, deadline: float = 5.0, require_box: bool = True) -> Check:
    """Check one solution without blocking the event loop; see `check_many`."""
    return (await acheck_many([(prediction_text, reference)], deadline=deadline, require_box=require_box))[0]
