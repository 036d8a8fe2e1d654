"""Judging equal rollouts once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fapo.judge.deduplicate import DeduplicatingJudge
from fapo.types import Problem, Rollout, Verdict


def test_equal_rollouts_are_judged_once_also_before_their_verdict() -> None:
    asked: list[str] = []

    async def judge(rollouts: Sequence[Rollout]) -> list[Verdict]:
        (rollout,) = rollouts
        asked.append(rollout.response)
        await asyncio.sleep(0.1)
        if rollout.response == "raises" and asked.count("raises") == 1:
            raise RuntimeError("out of memory")
        failed = rollout.response == "fails" and asked.count("fails") == 1
        return [Verdict("failed") if failed else Verdict.from_step(None)]

    async def ask(text: str, problem: str = "p") -> str:
        return (await deduplicating([Rollout(Problem("id", problem, "1"), text)]))[0].status

    async def all_of_them() -> list[list[str | BaseException]]:
        hasty = asyncio.ensure_future(ask("a"))
        rest = asyncio.gather(*map(ask, ["a", "a", "b", "fails", "fails", "raises", "raises"]), return_exceptions=True)
        await asyncio.sleep(0.05)
        hasty.cancel()
        first = await rest
        return [first, [await ask(text) for text in ("a", "fails", "raises")], [await ask("a", "another problem")]]

    deduplicating = DeduplicatingJudge(judge)
    first, again, other = asyncio.run(all_of_them())
    assert first[:5] == ["ok", "ok", "ok", "failed", "failed"], "one cancelled caller does not cancel the others"
    assert [str(error) for error in first[5:]] == ["out of memory"] * 2
    assert (again, other) == (["ok"] * 3, ["ok"])
    assert asked == ["a", "b", "fails", "raises", "fails", "raises", "a"], "only failures are judged again"


def test_the_oldest_verdicts_are_forgotten() -> None:
    asked: list[str] = []

    async def judge(rollouts: Sequence[Rollout]) -> list[Verdict]:
        asked.extend(rollout.response for rollout in rollouts)
        return [Verdict.from_step(None) for _ in rollouts]

    async def all_of_them() -> None:
        for text in "abcba":
            await deduplicating([Rollout(Problem("id", "p", "1"), text)])

    deduplicating = DeduplicatingJudge(judge, max_kept=2)
    asyncio.run(all_of_them())
    assert asked == ["a", "b", "c", "a"]


def test_new_rollouts_of_one_call_are_judged_in_one_request() -> None:
    asked: list[list[str]] = []

    async def judge(rollouts: Sequence[Rollout]) -> list[Verdict]:
        asked.append([rollout.response for rollout in rollouts])
        return [Verdict.from_step(None, rollout.response) for rollout in rollouts]

    async def two_calls() -> list[str]:
        await deduplicating([Rollout(Problem("id", "p", "1"), text) for text in "ab"])
        found = await deduplicating([Rollout(Problem("id", "p", "1"), text) for text in "cbcda"])
        return [verdict.critique for verdict in found]

    deduplicating = DeduplicatingJudge(judge)
    assert asyncio.run(two_calls()) == list("cbcda")
    assert asked == [["a", "b"], ["c", "d"]]


def test_clear_cancels_requests_also_before_they_start() -> None:
    asked: list[str] = []

    async def judge(rollouts: Sequence[Rollout]) -> list[Verdict]:
        asked.append(rollouts[0].response)
        await asyncio.sleep(60)
        return []

    async def start_and_clear() -> None:
        deduplicating.start([Rollout(Problem("id", "p", "1"), "a")])
        await asyncio.sleep(0)
        deduplicating.start([Rollout(Problem("id", "p", "1"), "b")])
        found = await asyncio.gather(*deduplicating.clear(), return_exceptions=True)
        assert [type(error) for error in found] == [asyncio.CancelledError] * 2

    deduplicating = DeduplicatingJudge(judge)
    asyncio.run(start_and_clear())
    assert asked == ["a"]
