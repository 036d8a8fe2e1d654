"""Reuse the verdicts that an interrupted run has recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fapo.judge.genrm import verdict_from_row
from fapo.types import Judge, Rollout, Verdict


def _on_record(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], Verdict]:
    """Problem id and response -> the verdict that an interrupted run has on it."""
    found = {(row["problem_id"], row["response"]): verdict_from_row(row) for row in rows}
    return {key: verdict for key, verdict in found.items() if verdict and verdict.status != "failed"}


class _Remembering:
    """A judge that first gives back the verdicts an interrupted run has on record."""

    def __init__(self, judge: Judge, known: Mapping[tuple[str, str], Verdict]) -> None:
        self.judge, self.known = judge, known

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Verdict]:
        keys = [(r.problem.id, r.response) for r in rollouts]
        new = [r for r, key in zip(rollouts, keys, strict=True) if key not in self.known]
        fresh = iter(await self.judge(new)) if new else iter(())
        return [self.known[key] if key in self.known else next(fresh) for key in keys]
