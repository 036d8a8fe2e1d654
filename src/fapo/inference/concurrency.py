"""Run async jobs with bounded concurrency, and functions in threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Future
from itertools import islice
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_thread(run: Callable[[], Result], name: str) -> Future[Result]:
    """Start a function in a thread for which a process that ends does not wait, unlike that of an executor.

    Args:
        run: The function.
        name: Name of the thread.

    Returns:
        Its result, or the exception that it raises. It cannot be cancelled: the thread runs to its end.
    """
    result: Future[Result] = Future()
    result.set_running_or_notify_cancel()

    def work() -> None:
        try:
            result.set_result(run())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=work, name=name, daemon=True).start()
    return result


async def run_all(jobs: Iterable[Job], run: Callable[[Job], Awaitable[None]], num_workers: int) -> None:
    """Run all jobs with `num_workers` at once.

    There is one task for each worker, since one for each job would wait in memory. A job is taken from the iterable
    only when a worker is free. An exception of `run` cancels the other workers and is raised.

    Args:
        jobs: Jobs in the order in which they are begun.
        run: Runs one job.
        num_workers: Number of jobs that run at once.
    """
    rest = iter(jobs)

    async def worker() -> None:
        for job in rest:
            await run(job)

    workers = [asyncio.create_task(worker()) for _ in range(num_workers)]
    try:
        await asyncio.gather(*workers)
    finally:
        for task in workers:
            task.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


async def run_batches(
    jobs: Sequence[Job],
    run: Callable[[Sequence[Job]], Awaitable[Sequence[str]]],
    *,
    batch_size: int,
    concurrency: int,
    record: Callable[[Sequence[str]], None],
    num_done: int = 0,
    progress: Callable[[int], None] = lambda num_done: None,
) -> None:
    """Run all jobs in batches, and report failures and progress after each batch.

    A server is asked about one job at a time with many requests at once. A model in this process is asked about one
    large batch at a time. `ChatClient` and `LocalModel` both have a `batch_size` and a `concurrency` that say so.

    Args:
        jobs: Jobs in the order in which they are begun.
        run: Runs the jobs of a batch and keeps their results; returns an error for each job, empty where it succeeded.
        batch_size: Number of jobs in a batch.
        concurrency: Number of batches that run at once.
        record: Called with the errors of each batch; its exception stops the work (see `CircuitBreaker`).
        num_done: Number of jobs that were done before, for `progress`.
        progress: Called after each batch with the number of jobs that are done.
    """
    rest = iter(jobs)
    batches = iter(lambda: list(islice(rest, batch_size)), [])

    async def run_batch(batch: Sequence[Job]) -> None:
        nonlocal num_done
        errors = await run(batch)
        num_done += sum(not error for error in errors)
        record(errors)
        progress(num_done)

    await run_all(batches, run_batch, concurrency)
