"""Checks of final answers: whether a solution's answer equals the reference, never longer than a deadline.

The rules are those of `fapo.final_answer`; `extract` is offered here too. What they leave to computer algebra may run
for ever or eat all memory, so it runs in a pool of worker processes that are killed at the deadline. That needs no
signals: it works from any thread, from a running event loop and after a fork.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import logging
import math
import os
import signal
import sys
import threading
import types
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, Literal

from pebble import ProcessPool

from fapo.final_answer import algebra, clean, decide, extract

__all__ = [
    "Check",
    "acheck",
    "acheck_many",
    "check_many",
    "extract",
    "shutdown",
]

MAX_CHARS = 2000
"""Longest answer or reference, in characters, that is compared by more than string equality."""
WORKER_MEMORY = 4 << 30
"""Address space of one worker, in bytes."""
TASKS_PER_WORKER = 2000
"""A worker is replaced after this many comparisons, so that its caches do not grow for ever."""
START_SECONDS = 60.0
"""How long workers may take to start before a comparison counts as timed out."""


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


# ---------------------------------------------------------------- the pool

_lock = threading.RLock()
_pool: ProcessPool | None = None
_open: set[concurrent.futures.Future[bool]] = set()
_inherited: list[Any] = []
_num_workers = max(1, min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))


def _start_worker(memory: int) -> None:
    """Once in each worker: a bound on memory, death at once when told so, the imports that take a second."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    logging.disable(logging.CRITICAL)
    import math_verify  # noqa: F401


class _Process(SpawnProcess):
    """A spawned process that does not import the caller's __main__: a script needs no `if __name__` guard."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        from multiprocessing import popen_spawn_posix, spawn

        def preparation(name: str) -> dict[str, Any]:
            data = spawn.get_preparation_data(name)
            return {key: value for key, value in data.items() if not key.startswith("init_main")}

        without_main = types.SimpleNamespace(**{**vars(spawn), "get_preparation_data": preparation})
        launch = popen_spawn_posix.Popen._launch  # type: ignore[attr-defined]

        class Popen(popen_spawn_posix.Popen):
            _launch = types.FunctionType(launch.__code__, {**launch.__globals__, "spawn": without_main})

        return Popen(process_obj)


class _Spawn(SpawnContext):
    if sys.platform != "win32":
        Process = _Process


def _submit(answer: str, reference: str, deadline: float) -> concurrent.futures.Future[bool]:
    global _pool
    with _lock:
        if _pool is not None and not _pool.active:
            shutdown()
        if _pool is None:
            _pool = ProcessPool(_num_workers, TASKS_PER_WORKER, _start_worker, (WORKER_MEMORY,), _Spawn())
        future = _pool.schedule(algebra, args=(answer, reference), timeout=deadline)
        _open.add(future)
        future.add_done_callback(_open.discard)
        return future


def _patience(deadline: float) -> float:
    """Seconds after which workers that have not even started are given up."""
    return START_SECONDS + (deadline + 4.0) * math.ceil(1 + len(_open) / _num_workers)


def shutdown() -> None:
    """Stop the workers. The next comparison starts new ones. Called at exit by itself."""
    global _pool
    with _lock:
        pool, _pool = _pool, None
        for future in list(_open):
            future.cancel()
        _open.clear()
    if pool is not None:
        pool.stop()
        pool.join()


def _forget_pool() -> None:
    """In a forked child: the workers belong to the parent."""
    global _lock, _pool, _open
    _inherited.append((_pool, _open))
    _lock, _pool, _open = threading.RLock(), None, set()


atexit.register(shutdown)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


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
    return Check(False, answer, "error", f"{type(error).__name__}: {error}")


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
    if not deadline > 0:
        raise ValueError(f"deadline must be a positive number of seconds, not {deadline!r}")
    answers = list(answers)
    triaged = [_triage(answer, reference) for answer, reference in zip(answers, references, strict=True)]
    jobs = dict.fromkeys(item for item in triaged if isinstance(item, tuple))
    return _Batch(answers, triaged, {job: _submit(*job, deadline) for job in jobs}, deadline)


def _finish(batch: _Batch) -> list[Check]:
    try:
        concurrent.futures.wait(batch.futures.values(), timeout=_patience(batch.deadline))
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
            await asyncio.wait(waiting.values(), timeout=_patience(deadline))
        return batch.checks(waiting)
    finally:
        for future in waiting.values():
            future.cancel()


async def acheck(prediction_text: str, reference: str, *, deadline: float = 5.0, require_box: bool = True) -> Check:
    """Check one solution without blocking the event loop; see `check_many`."""
    return (await acheck_many([(prediction_text, reference)], deadline=deadline, require_box=require_box))[0]
