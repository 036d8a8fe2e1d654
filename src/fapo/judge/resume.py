"""A judge that reuses the verdicts which an interrupted run has recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fapo.judge.verdicts import verdict_from_row
from fapo.types import Judge, Rollout, Verdict

RecordedVerdicts = Mapping[tuple[str, str], Verdict]
"""(problem id, response) -> verdict."""


def recorded_verdicts(rows: Sequence[Mapping[str, Any]]) -> RecordedVerdicts:
    """Return the verdicts in rows of rollouts.jsonl, without the failed ones."""
    found = {(row["problem_id"], row["response"]): verdict_from_row(row) for row in rows}
    return {key: verdict for key, verdict in found.items() if verdict and verdict.status != "failed"}


class RecordedJudge:
    """A `Judge` that returns recorded verdicts, and asks another judge about all other rollouts."""

    def __init__(self, judge: Judge, recorded: RecordedVerdicts) -> None:
        """Use `recorded`, and `judge` for rollouts that are not in it."""
        self.judge, self.recorded = judge, recorded

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Verdict]:
        """Return one verdict for each rollout, in order."""
        keys = [(rollout.problem.id, rollout.response) for rollout in rollouts]
        new = [rollout for rollout, key in zip(rollouts, keys, strict=True) if key not in self.recorded]
        judged = iter(await self.judge(new)) if new else iter(())
        return [self.recorded[key] if key in self.recorded else next(judged) for key in keys]
