"""A judge that judges equal rollouts once, also when they are requested one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from fapo.types import Judge, Rollout, Verdict

NUM_KEPT = 1024
"""Number of verdicts that are kept: more than the rollouts of one batch in one of verl's reward workers."""


class DeduplicatingJudge:
    """Judge that passes rollouts with the same `judge_key` to another judge once, and keeps the latest verdicts."""

    def __init__(self, judge: Judge, num_kept: int = NUM_KEPT) -> None:
        """Start without verdicts.

        Args:
            judge: Judge that gives the verdicts. It receives one rollout at a time.
            num_kept: Number of latest verdicts that are kept.
        """
        self.judge, self.num_kept = judge, num_kept
        self._verdicts: dict[Any, asyncio.Future[list[Verdict]]] = {}

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Verdict]:
        """Return one verdict for each rollout, in order.

        Failed verdicts are not kept. Cancelling one caller does not cancel a request that it shares with others.
        """
        requests = [self._request(rollout.judge_key, rollout) for rollout in rollouts]
        return [(await asyncio.shield(request))[0] for request in requests]

    def _request(self, key: Any, rollout: Rollout) -> asyncio.Future[list[Verdict]]:
        """Return the request for a rollout, a new one if there is none for its key."""
        if key not in self._verdicts:
            if len(self._verdicts) >= self.num_kept:
                del self._verdicts[next(iter(self._verdicts))]
            self._verdicts[key] = asyncio.ensure_future(self.judge([rollout]))
            self._verdicts[key].add_done_callback(lambda future: self._drop_failure(key, future))
        return self._verdicts[key]

    def _drop_failure(self, key: Any, future: asyncio.Future[list[Verdict]]) -> None:
        """Forget a finished request that has failed, so that the next one for its key is new."""
        failed = future.cancelled() or future.exception() or future.result()[0].status == "failed"
        if failed and self._verdicts.get(key) is future:
            del self._verdicts[key]
