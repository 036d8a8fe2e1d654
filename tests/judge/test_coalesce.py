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
        await asyncio.sleep(0.1)
        if "bad" in read[-1]:
            raise RuntimeError("out of memory")
        return [Verdict.from_step(None, rollout.response) for rollout in rollouts]

    async def ask(text: str, after: float) -> str:
        await asyncio.sleep(after)
        (verdict,) = await batching([Rollout(Problem("p", "", "1"), text)])
        return verdict.critique

    async def all_of_them() -> list[str | BaseException]:
        asked = [*(ask(text, 0) for text in "abc"), *(ask(text, 0.05) for text in ("d", "bad")), ask("e", 0.15)]
        return await asyncio.gather(*asked, return_exceptions=True)

    batching = BatchingJudge(judge)
    found = asyncio.run(all_of_them())
    assert read == [["a", "b", "c"], ["d", "bad"], ["e"]]
    assert [*found[:3], found[5]] == ["a", "b", "c", "e"]
    assert [str(error) for error in found[3:5]] == ["out of memory"] * 2
