"""Check final answers: is the answer of a solution equal to the reference? Each check ends at a deadline.

`fapo.data.final_answers` has the rules. Where they need computer algebra, it runs in a worker process that ends at the
deadline (`fapo.rewards.answer_workers`). Checks can therefore be called from any thread and inside an event loop.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fapo.data.final_answers import MAX_CHARS, clean, decide, extract
from fapo.rewards.answer_workers import shutdown, submit, wait_limit

__all__ = ["Check", "acheck_answers", "check_answers", "shutdown"]


@dataclass(frozen=True)
class Check:
    """Result of the comparison of a solution's final answer with the reference."""

    correct: bool
    """Whether the answer was shown to be equivalent."""
    answer: str | None
    """The extracted answer; None where the text has none."""
    status: Literal["ok", "no_answer", "timeout", "error"]
    """ok: decided; no_answer: nothing to compare; timeout: stopped at the deadline; error: could not be compared."""
    detail: str = ""
    """Reason why the answer could not be compared; empty otherwise."""
    unscored: bool = False
    """Whether nothing is known, because a checker of the user failed, or no worker process could start.

    Other undecided answers count as wrong.
    """

    @property
    def undecided(self) -> bool:
        """Whether there is an answer that could not be compared."""
        return self.status in ("timeout", "error")

    @property
    def failure(self) -> str:
        """Reason why nothing is known; empty for any other check."""
        return self.detail if self.unscored else ""


def _triage(answer: str | None, reference: str) -> Check | tuple[str, str]:
    """Return a Check where exact rules decide; else the cleaned answer and reference for computer algebra."""
    if answer is None:
        return Check(False, None, "no_answer", "no final answer")
    if answer.strip() == reference.strip():
        return Check(True, answer, "ok")
    if max(len(answer), len(reference)) > MAX_CHARS:
        return Check(False, answer, "error", f"longer than {MAX_CHARS} characters")
    cleaned = clean(answer), clean(reference)
    decided = decide(*cleaned)
    return cleaned if decided is None else Check(decided, answer, "ok")


def _outcome(answer: str, future: Any, deadline: float) -> Check:
    """Return the Check of one comparison: a concurrent or an asyncio future, which may be finished or not."""
    if not future.done() or future.cancelled():
        return Check(False, answer, "timeout", "no worker took it in time", unscored=True)
    error = future.exception()
    if error is None:
        return Check(future.result(), answer, "ok")
    if isinstance(error, TimeoutError):
        return Check(False, answer, "timeout", f"stopped after {deadline:g} s")
    return Check(False, answer, "error", str(error), unscored=isinstance(error, OSError))


@dataclass(frozen=True)
class _Batch:
    """Solutions that are being checked; equal pairs of answer and reference are compared once."""

    answers: list[str | None]
    triaged: list[Check | tuple[str, str]]
    futures: dict[tuple[str, str], concurrent.futures.Future[bool]]
    deadline: float

    def checks(self, finished: dict[tuple[str, str], Any]) -> list[Check]:
        """Return one Check for each solution, given the futures of the comparisons."""
        return [
            item if isinstance(item, Check) else _outcome(answer or "", finished[item], self.deadline)
            for answer, item in zip(self.answers, self.triaged, strict=True)
        ]


def _start(pairs: Sequence[tuple[str, str]], deadline: float, require_box: bool) -> _Batch:
    """Start the comparisons that need computer algebra, for (solution text, reference) pairs."""
    if not 0 < deadline < math.inf:
        raise ValueError(f"deadline must be a positive number of seconds, not {deadline!r}")
    answers = [extract(text, require_box=require_box) for text, _ in pairs]
    triaged = [_triage(answer, reference) for answer, (_, reference) in zip(answers, pairs, strict=True)]
    jobs = dict.fromkeys(item for item in triaged if isinstance(item, tuple))
    return _Batch(answers, triaged, {job: submit(*job, deadline) for job in jobs}, deadline)


def check_answers(pairs: Sequence[tuple[str, str]], *, deadline: float = 5.0, require_box: bool = True) -> list[Check]:
    r"""Check final answers in parallel.

    A unit counts if both sides have one: `5 cm` equals `5`, but not `5 m`. A percent sign divides by 100. A choice
    letter is compared as a letter only, and words beside a number ("or more") make it another answer. A list must have
    as many elements as the reference; the order matters only within a tuple. No text raises an exception.

    Args:
        pairs: (solution text, reference) pairs.
        deadline: Seconds for each comparison, counted from when a worker takes it. Another comparison is not affected.
        require_box: Whether only a \boxed{} counts as a final answer.

    Returns:
        One Check for each pair, in order.

    Raises:
        ValueError: If the deadline is not positive and finite.
    """
    batch = _start(pairs, deadline, require_box)
    try:
        concurrent.futures.wait(batch.futures.values(), timeout=wait_limit(deadline))
        return batch.checks(batch.futures)
    finally:
        for future in batch.futures.values():
            future.cancel()


async def acheck_answers(
    pairs: Sequence[tuple[str, str]], *, deadline: float = 5.0, require_box: bool = True
) -> list[Check]:
    """Check final answers without blocking the event loop; see `check_answers`. Cancelling it stops the comparisons.

    Args:
        pairs: (solution text, reference) pairs.
        deadline: Seconds for each comparison.
        require_box: Whether only a boxed answer counts as a final answer.

    Returns:
        One Check for each pair, in order.

    Raises:
        ValueError: If the deadline is not positive and finite.
    """
    batch = _start(pairs, deadline, require_box)
    waiting = {job: asyncio.wrap_future(future) for job, future in batch.futures.items()}
    try:
        if waiting:
            await asyncio.wait(waiting.values(), timeout=wait_limit(deadline))
        return batch.checks(waiting)
    finally:
        for future in waiting.values():
            future.cancel()
