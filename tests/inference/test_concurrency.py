"""Jobs run with bounded concurrency, in order, and stop at the first exception."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import pytest

from fapo.inference.concurrency import run_all, run_batches


@pytest.mark.parametrize("num_workers", [1, 3, 20])
def test_all_jobs_run_with_bounded_concurrency(num_workers: int) -> None:
    done: list[int] = []
    under_way: set[int] = set()
    most = 0

    async def run(job: int) -> None:
        nonlocal most
        under_way.add(job)
        most = max(most, len(under_way))
        await asyncio.sleep(0.001)
        under_way.remove(job)
        done.append(job)

    asyncio.run(run_all(range(10), run, num_workers))
    assert sorted(done) == list(range(10))
    assert most == min(num_workers, 10)


def test_a_job_is_taken_only_when_a_worker_is_free() -> None:
    taken: list[int] = []

    def jobs() -> Iterator[int]:
        for job in range(100):
            taken.append(job)
            yield job

    async def run(job: int) -> None:
        if job == 5:
            raise RuntimeError("job 5")
        await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="job 5"):
        asyncio.run(run_all(jobs(), run, 2))
    assert len(taken) < 10


@pytest.mark.parametrize(("batch_size", "concurrency"), [(1, 4), (3, 1), (100, 1)])
def test_batches_report_errors_and_progress(batch_size: int, concurrency: int) -> None:
    batches: list[Sequence[int]] = []
    errors: list[str] = []
    progress: list[int] = []

    async def run(batch: Sequence[int]) -> list[str]:
        batches.append(batch)
        return ["failed" if job % 4 == 0 else "" for job in batch]

    asyncio.run(
        run_batches(
            range(8),
            run,
            batch_size=batch_size,
            concurrency=concurrency,
            record=errors.extend,
            num_done=10,
            progress=progress.append,
        )
    )
    assert [job for batch in batches for job in batch] == list(range(8))
    assert {len(batch) for batch in batches[:-1]} <= {batch_size}
    assert errors == ["failed", "", "", "", "failed", "", "", ""]
    assert progress[-1] == 16
    assert progress == sorted(progress)


def test_an_exception_of_record_stops_the_work() -> None:
    asked: list[int] = []

    async def run(batch: Sequence[int]) -> list[str]:
        asked.extend(batch)
        return ["failed"] * len(batch)

    def record(errors: Sequence[str]) -> None:
        if len(asked) >= 3:
            raise RuntimeError("the model is down")

    with pytest.raises(RuntimeError, match="the model is down"):
        asyncio.run(run_batches(range(100), run, batch_size=1, concurrency=1, record=record))
    assert asked == [0, 1, 2]
