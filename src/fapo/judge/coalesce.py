"""A judge that joins requests into batches, for models in this process, which answer a batch faster than its parts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fapo.types import Judge, Rollout, Verdict


class BatchingJudge:
    """Judge that collects rollouts while another judge is busy, and passes them on to it as one batch."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self._waiting: list[tuple[Sequence[Rollout], asyncio.Future[list[Verdict]]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Verdict]:
        """Return one verdict for each rollout, in order.

        An exception of the other judge is raised to every caller that has rollouts in the batch.
        """
        verdicts: asyncio.Future[list[Verdict]] = asyncio.get_running_loop().create_future()
        self._waiting.append((rollouts, verdicts))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await verdicts

    async def _work(self) -> None:
        """Judge batches until no rollouts wait."""
        while self._waiting:
            batch, self._waiting = self._waiting, []
            batch = [(rollouts, future) for rollouts, future in batch if not future.cancelled()]
            try:
                verdicts = iter(await self.judge([rollout for rollouts, _ in batch for rollout in rollouts]))
                results = [[next(verdicts) for _ in rollouts] for rollouts, _ in batch]
            except Exception as error:
                for _, future in batch:
                    if not future.cancelled():
                        future.set_exception(error)
                continue
            for (_, future), result in zip(batch, results, strict=True):
                if not future.cancelled():
                    future.set_result(result)
