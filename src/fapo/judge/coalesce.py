"""A judge that joins calls which arrive while another judge is busy: a model in this process is fastest on batches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fapo.types import Judge, Rollout, Verdict


class BatchingJudge:
    """A `Judge` that collects the rollouts of calls while another judge is busy, and passes them on as one batch."""

    def __init__(self, judge: Judge) -> None:
        """Start without waiting calls; `judge` is asked about one batch at a time."""
        self.judge = judge
        self._waiting: list[tuple[Sequence[Rollout], asyncio.Future[list[Verdict]]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Verdict]:
        """Return one verdict for each rollout. An exception of the other judge is raised in every call of its batch."""
        verdicts: asyncio.Future[list[Verdict]] = asyncio.get_running_loop().create_future()
        self._waiting.append((rollouts, verdicts))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await verdicts

    async def _work(self) -> None:
        """Judge batches until no call is waiting."""
        while self._waiting:
            batch, self._waiting = self._waiting, []
            batch = [(rollouts, call) for rollouts, call in batch if not call.cancelled()]
            try:
                verdicts = iter(await self.judge([rollout for rollouts, _ in batch for rollout in rollouts]))
                results = [[next(verdicts) for _ in rollouts] for rollouts, _ in batch]
            except Exception as error:
                for _, call in batch:
                    if not call.cancelled():
                        call.set_exception(error)
                continue
            for (_, call), result in zip(batch, results, strict=True):
                if not call.cancelled():
                    call.set_result(result)
