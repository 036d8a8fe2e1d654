"""Canaries: solutions with known labels that are judged beside the rollouts, to measure the judge during a run."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fapo.errors import DataError, JudgeDownError
from fapo.judge.quality import judge_quality
from fapo.types import Judge, LabelledSolution, Rollout, Verdict, unwrapped

WINDOW = 64
"""Window size: quality is measured on the last 64 canaries, so a change shows after at most 64 of them."""
MIN_CANARIES = 32
"""Minimum number of canaries before the judge is stopped for its F1."""


CanaryResult = tuple[Verdict, int | None]
"""Verdict on a canary, and the index of its true first wrong step (None: it has none)."""


@dataclass(eq=False)
class CanaryWindow:
    """The latest canary results, and the rule that stops a judge for its F1 on them."""

    min_f1: float = 0.0
    """Lowest F1 at which the run continues; 0 never stops it."""
    recent: deque[CanaryResult] = field(default_factory=lambda: deque(maxlen=WINDOW), init=False)
    """The last WINDOW results, without failed verdicts."""

    def add(self, results: Iterable[CanaryResult]) -> None:
        """Add results; failed verdicts are left out."""
        self.recent.extend((verdict, label) for verdict, label in results if verdict.status != "failed")

    def check(self) -> None:
        """Raise JudgeDownError if F1 on at least MIN_CANARIES latest canaries, some flawed, is below `min_f1`."""
        if len(self.recent) < MIN_CANARIES or not (f1 := self.metrics()["canary/f1"]) < self.min_f1:
            return
        raise JudgeDownError(
            f"the judge is not to be trusted: F1 {f1:.2f} on the last {len(self.recent)} solutions of known truth, "
            f"judge.canary_min_f1 is {self.min_f1:g}. Stopped; look at its critiques, restore the judge, and resume"
        )

    def metrics(self) -> dict[str, float]:
        """Return canary/precision, recall, f1, location and invalid_rate of the latest canaries; {} without any."""
        if not self.recent:
            return {}
        verdicts, labels = zip(*self.recent, strict=True)
        return {f"canary/{name}": value for name, value in judge_quality(verdicts, labels).items()}


@dataclass(eq=False)
class Canaries:
    """A `Judge` that has canaries judged beside the rollouts of each call.

    Each canary is flawed with probability 1/2, and has the form of a rollout. The choice depends only on the seed and
    on the rollouts of the call.
    """

    judge: Judge
    """Judge of the rollouts."""
    known: Sequence[LabelledSolution]
    """Labelled solutions, some flawed, some fully correct; those with a wrong answer are not used."""
    rate: float
    """Number of canaries for each rollout."""
    min_f1: float = 0.0
    """Lowest F1 on the latest canaries at which the run continues; 0 never stops it."""
    seed: int = 0
    """Seed of the choice of canaries."""
    uncached: Judge | None = None
    """`judge` without its cache, which would hide a change of the judge; None if `judge` has no cache."""
    results: list[CanaryResult] | None = field(default=None, init=False)
    """Optional list, to which the result of each canary is also appended; the verl worker sends it to the trainer."""

    def __post_init__(self) -> None:
        known = [solution for solution in self.known if solution.correct]  # a wrong answer is easy to flag
        flawed = [solution for solution in known if solution.error_step is not None]
        flawless = [solution for solution in known if solution.error_step is None]
        if not flawed or not flawless:
            raise DataError(
                f"judge.canaries: {len(flawed)} flawed and {len(flawless)} fully correct solutions with a correct "
                "answer; needs both kinds"
            )
        self._kinds = (flawed, flawless)
        self._window = CanaryWindow(self.min_f1)

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Verdict]:
        """Return the verdicts on the rollouts, in order. Raise JudgeDownError if F1 on the canaries is too low."""
        rng = random.Random(repr((self.seed, [rollout.response for rollout in rollouts])))
        num = int(self.rate * len(rollouts) + rng.random())
        drawn = [rng.choice(rng.choice(self._kinds)) for _ in range(num)]
        canaries = [Rollout(solution.problem, "\n\n".join(solution.steps)) for solution in drawn]
        verdicts, found = await asyncio.gather(self.judge(rollouts), (self.uncached or self.judge)(canaries))
        results = list(zip(found, [solution.error_step for solution in drawn], strict=True))
        if self.results is not None:
            self.results += results
        self._window.add(results)
        self._window.check()
        return verdicts

    def metrics(self) -> dict[str, float]:
        """Return the metrics of the latest canaries; {} without any."""
        return self._window.metrics()


def find_canaries(judge: Judge | None) -> Canaries | None:
    """Return the canaries of a judge, also where other judges are wrapped around them; None without canaries."""
    return next((part for part in unwrapped(judge) if isinstance(part, Canaries)), None)
