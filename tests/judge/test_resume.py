"""Reusing the verdicts that an interrupted run has recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fapo.judge.resume import RecordedJudge, recorded_verdicts
from fapo.judge.verdicts import verdict_row
from fapo.types import Problem, Rollout, Verdict

FINE, FLAWED = Verdict.from_step(None, "fine"), Verdict.from_step(1, "step 1")
ROWS = [
    {"problem_id": "p", "response": response, **verdict_row(verdict)}
    for response, verdict in {
        "fine": FINE,
        "flawed": FLAWED,
        "unparsable": Verdict("unparsable", reason="no boxed step"),
        "failed": Verdict("failed", reason="HTTP 500"),
        "wrong answer": None,
    }.items()
]


def test_failed_and_missing_verdicts_are_not_reused() -> None:
    assert [response for _, response in recorded_verdicts(ROWS)] == ["fine", "flawed", "unparsable"]


def test_only_other_rollouts_are_judged_and_verdicts_stay_in_order() -> None:
    asked: list[list[tuple[str, str]]] = []

    async def judge(rollouts: Sequence[Rollout]) -> list[Verdict]:
        asked.append([(rollout.problem.id, rollout.response) for rollout in rollouts])
        return [Verdict.from_step(0, rollout.response) for rollout in rollouts]

    recorded = RecordedJudge(judge, recorded_verdicts(ROWS))
    rows = [("p", "failed"), ("p", "flawed"), ("other", "flawed"), ("p", "fine")]
    found = asyncio.run(recorded([Rollout(Problem(id, "?", "1"), response) for id, response in rows]))
    assert asked == [[("p", "failed"), ("other", "flawed")]]
    assert found == [Verdict.from_step(0, "failed"), FLAWED, Verdict.from_step(0, "flawed"), FINE]
    assert asyncio.run(recorded([Rollout(Problem("p", "?", "1"), "fine")])) == [FINE]
    assert len(asked) == 1, "no call without rollouts"
