"""A judge that judges equal rollouts once, also when they arrive in different calls."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from fapo.types import Judge, Rollout, Verdict

MAX_KEPT = 1024
"""Default number of verdicts to keep; more than the solutions of a batch that one reward worker has judged."""

JudgeKey = tuple[Any, ...]
"""`Rollout.judge_key`."""
Place = tuple[asyncio.Future[list[Verdict]], int]
"""Place of a verdict: a request to the other judge, and the index among its verdicts."""


class DeduplicatingJudge:
    """A `Judge` that asks another judge once about rollouts with the same `judge_key`.

    A request is shared as soon as it starts. Cancelling one caller does not cancel the shared request.
    """

    def __init__(self, judge: Judge, *, max_kept: int | None = MAX_KEPT, keep_failures: bool = False) -> None:
        """Start without verdicts.

        Args:
            judge: Judge that is asked.
            max_kept: Number of verdicts to keep; the oldest one is dropped first. None keeps all until `clear`.
            keep_failures: Whether failed verdicts and exceptions of the judge are kept, too. If not, a rollout with a
                failure is judged again the next time.
        """
        self.judge, self.max_kept, self.keep_failures = judge, max_kept, keep_failures
        self._places: dict[JudgeKey, Place] = {}

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Verdict]:
        """Return one verdict for each rollout, in order. New rollouts are judged in one call of the other judge."""
        places = self.start(rollouts)
        requests = dict.fromkeys(request for request, _ in places)
        await asyncio.gather(*map(asyncio.shield, requests))
        return [request.result()[index] for request, index in places]

    def start(self, rollouts: Sequence[Rollout]) -> list[Place]:
        """Start a request about the new ones among the rollouts, and return the place of each verdict, in order."""
        found = {r.judge_key: self._places[r.judge_key] for r in rollouts if r.judge_key in self._places}
        new = {r.judge_key: r for r in rollouts if r.judge_key not in found}
        if new:
            request = asyncio.ensure_future(self.judge(list(new.values())))
            places = {key: (request, index) for index, key in enumerate(new)}
            self._keep(places)
            request.add_done_callback(lambda _: self._drop_failures(places))
            found |= places
        return [found[rollout.judge_key] for rollout in rollouts]

    def clear(self) -> list[asyncio.Future[list[Verdict]]]:
        """Cancel the open requests, forget all verdicts, and return the requests that were kept."""
        requests = list(dict.fromkeys(request for request, _ in self._places.values()))
        self._places = {}
        for request in requests:
            request.cancel()
        return requests

    def _keep(self, places: Mapping[JudgeKey, Place]) -> None:
        """Keep new places; drop the oldest ones if there is no room."""
        for key, place in places.items():
            if self.max_kept is not None and len(self._places) >= self.max_kept:
                del self._places[next(iter(self._places))]
            self._places[key] = place

    def _drop_failures(self, places: Mapping[JudgeKey, Place]) -> None:
        """Drop the places of a request that has ended where it failed; called once for each request."""
        for key, (request, index) in places.items():
            # reading the exception also keeps asyncio from logging it where no caller is left
            failed = request.cancelled() or request.exception() or request.result()[index].status == "failed"
            if failed and not self.keep_failures and self._places.get(key) == (request, index):
                del self._places[key]
