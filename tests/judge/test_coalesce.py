"""Joining single requests into batches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fapo.judge.coalesce import BatchingJudge
from fapo.types import Problem, Rollout, Verdict


def test_rollouts_that_come_one_by_one_are_judged_together() -> None:
    read: list[list[str]] = []

    async def judge(rollouts: Sequence[Rollout]) -> list[Verdict]:
        read.append([rollout.response for rollout in rollouts])
        await turns.acquire()
        if "bad" in read[-1]:
            raise RuntimeError("out of memory")
        return [Verdict.from_step(None, rollout.response) for rollout in rollouts]

    async def ask(text: str) -> str:
        (verdict,) = await batching([Rollout(Problem("p", "", "1"), text)])
        return verdict.critique

    async def all_of_them() -> list[str | BaseException]:
        asked: list[asyncio.Task[str]] = []
        for i, texts in enumerate((["a", "b", "c"], ["d", "bad"], ["e"])):
            asked += [asyncio.create_task(ask(text)) for text in texts]
            await asyncio.sleep(0)  # until they wait for the judge
            if i:
                turns.release()
            while len(read) == i:
                await asyncio.sleep(0)
        turns.release()
        return await asyncio.gather(*asked, return_exceptions=True)

    turns = asyncio.Semaphore(0)
    batching = BatchingJudge(judge)
    found = asyncio.run(all_of_them())
    assert read == [["a", "b", "c"], ["d", "bad"], ["e"]]
    assert [*found[:3], found[5]] == ["a", "b", "c", "e"]
    assert [str(error) for error in found[3:5]] == ["out of memory"] * 2
