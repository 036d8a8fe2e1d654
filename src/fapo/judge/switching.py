"""A judge that another judge can replace in the middle of a run."""

from __future__ import annotations

from collections.abc import Sequence

from fapo.types import Judge, Rollout, Verdict, unwrapped


class SwitchingJudge:
    """A `Judge` that asks one judge, and a second one as soon as `second` is set. It keeps no verdict of either."""

    def __init__(self, judge: Judge) -> None:
        """Start with the judge that is asked first."""
        self.judge = judge
        self.second: Judge | None = None
        """Judge that has taken the place of the first one; None so far."""

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Verdict]:
        """Return one verdict for each rollout, in order, of the judge that is in place when the call begins."""
        return await (self.second or self.judge)(rollouts)


def find_switch(judge: Judge | None) -> SwitchingJudge | None:
    """Return the judge that can be replaced, also where others are wrapped around it; None if there is none."""
    return next((part for part in unwrapped(judge) if isinstance(part, SwitchingJudge)), None)
