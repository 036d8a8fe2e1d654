"""Run async jobs with bounded concurrency."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import islice
from typing import TypeVar

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
    record: Callable[[Sequence[str]], None],
    done: int = 0,
    progress: Callable[[int], None] = lambda num_done: None,
) -> None:
    """Ask a model about all jobs with bounded concurrency.

    Args:
        jobs: Jobs in the order in which they are begun.
        ask: Asks about some jobs and keeps the answers; returns an error for each job, empty where it is done.
        served: Whether a server is asked, for one job at a time; a model in this process is asked for several together.
        concurrency: Number of requests under way at once, of a server.
        batch: Number of jobs asked for together, of a model in this process.
        record: Called with the errors of each call of `ask`; its exception stops the work (see `CircuitBreaker`).
        done: Number of jobs that were done before, for `progress`.
        progress: Called with the number of jobs that are done.
    """
    rest = iter(jobs)
    batches = iter(lambda: list(islice(rest, 1 if served else batch)), [])

    async def do(some: Sequence[Job]) -> None:
        nonlocal done
        errors = await ask(some)
        done += sum(not error for error in errors)
        record(errors)
        progress(done)

    await share(batches, do, concurrency if served else 1)
