"""Counters of the reward service in the form of Prometheus, also over several server processes."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from fapo.types import Judge, Rollout, ScoredRollout, Verdict

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable with the folder in which several server processes share their counters."""
SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 600.0)
"""Upper limits of the buckets of the judge's latency in seconds."""


class Metrics:
    """Counters of one server process."""

    def __init__(self) -> None:
        """Start at zero."""
        self._registry = own = CollectorRegistry()
        self.requests = Counter("fapo_requests", "Requests by door and HTTP status", ("door", "status"), registry=own)
        self.rollouts = Counter(
            "fapo_rollouts",
            "Scored rollouts by class: fully_correct, flawed, wrong, unscored",
            ("rollout_class",),
            registry=own,
        )
        self.rewards = Counter(
            "fapo_rewards", "Rollouts with a reward, and without one for lack of a verdict", ("result",), registry=own
        )
        self.waiting = Gauge("fapo_rollouts_waiting", "Rollouts under way", registry=own, multiprocess_mode="livesum")
        self.judge_seconds = Histogram("fapo_judge_seconds", "Seconds of one judgement", buckets=SECONDS, registry=own)

    def count(self, scored: Sequence[ScoredRollout]) -> None:
        """Count scored rollouts."""
        for result in scored:
            self.rollouts.labels(result.rollout_class).inc()
            self.rewards.labels("none" if result.reward.value is None else "reward").inc()

    def text(self) -> bytes:
        """Return the counters of all server processes as text."""
        registry = self._registry
        if FOLDER_VARIABLE in os.environ:
            _forget_dead_processes(Path(os.environ[FOLDER_VARIABLE]))
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def _forget_dead_processes(folder: Path) -> None:
    """Remove the gauges of server processes that have ended; nothing is under way there."""
    for file in folder.glob("gauge_live*.db"):
        process = int(file.stem.rpartition("_")[2])
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            mark_process_dead(process)  # type: ignore[no-untyped-call]


class TimedJudge:
    """A `Judge` that measures how long another judge takes."""

    def __init__(self, judge: Judge, metrics: Metrics) -> None:
        """Measure the calls of `judge`."""
        self.judge, self._metrics = judge, metrics

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Verdict]:
        """Return the verdicts of the other judge."""
        start = time.perf_counter()
        verdicts = await self.judge(rollouts)
        self._metrics.judge_seconds.observe(time.perf_counter() - start)
        return verdicts
