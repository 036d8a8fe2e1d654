"""Workers that share jobs: all are done, or for a model until nothing comes back any more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice
from typing import TypeVar

from fapo.errors import EngineError

FIRST = 20
"""So many failures from the first job on, without an answer, end the work."""
PATIENCE = 100
"""So many failures one after the other, or a hundredth of all there is to do, end it too."""

Job = TypeVar("Job")


async def share(jobs: Iterable[Job], do: Callable[[Job], Awaitable[None]], num_workers: int) -> None:
    """Do all jobs, `num_workers` at once: a task for each worker, since one for each job would wait in memory.

    Jobs are looked at when their turn comes. What `do` raises ends the others, and is raised.
    """
    rest = iter(jobs)

    async def worker() -> None:
        for job in rest:
            await do(job)

    workers = [asyncio.create_task(worker()) for _ in range(num_workers)]
    try:
        await asyncio.gather(*workers)
    finally:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def work_off(
    jobs: Sequence[Job],
    ask: Callable[[Sequence[Job]], Awaitable[Sequence[str]]],
    *,
    served: bool,
    concurrency: int,
    batch: int,
    what: str,
    kept: str = "",
    done: int = 0,
    progress: Callable[[int], None] = lambda num_done: None,
) -> None:
    """Ask a server for one job at a time, `concurrency` times at once; a model in this process for `batch` together.

    `ask` keeps what came and returns an error for each job, empty where it is done. `done` jobs were done before.
    Raises EngineError, which names `what` failed and where answers are `kept`, when only failures come back.
    """
    rest = iter(jobs)
    batches = iter(lambda: list(islice(rest, 1 if served else batch)), [])
    total, failed, in_a_row = done + len(jobs), 0, 0

    async def do(some: Sequence[Job]) -> None:
        nonlocal done, failed, in_a_row
        for error in await ask(some):
            done, failed, in_a_row = (done, failed + 1, in_a_row + 1) if error else (done + 1, failed, 0)
            if in_a_row >= max(PATIENCE, total // 100) or (not done and failed >= min(FIRST, len(jobs))):
                tail = f" (the answers so far are in {kept})" if kept else ""
                raise EngineError(
                    f"{what}: {in_a_row} failures one after the other, the last one: {error}; "
                    f"remove the cause and start again{tail}"
                )
        progress(done)

    await share(batches, do, concurrency if served else 1)
