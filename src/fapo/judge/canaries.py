"""Canaries: solutions whose truth is known, among those a judge is asked about, to see how good it is now."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fapo.data.steps import split_steps
from fapo.errors import DataError, JudgeDownError
from fapo.judge.quality import judge_quality
from fapo.types import Judge, LabelledSolution, Rollout, Verdict

WINDOW = 64
"""Window size: quality is measured on the last 64 canaries, so a change shows after at most 64 of them."""
ENOUGH = 32
"""Minimum number of canaries before the judge is stopped for its F1."""


CanaryResult = tuple[Verdict, int | None]
"""Verdict on a canary, and the index of its true first wrong step (None: it has none)."""


@dataclass(eq=False)
class Window:
    """The latest canaries."""

    min_f1: float = 0.0
    """Below it the judge is not to be trusted; 0: only watch."""
    recent: deque[CanaryResult] = field(default_factory=lambda: deque(maxlen=WINDOW), init=False)
    """Those that got an answer."""

    def add(self, results: Iterable[CanaryResult]) -> None:
        """Add results; canaries without an answer are left out."""
        self.recent.extend((verdict, label) for verdict, label in results if verdict.status != "failed")

    def check(self) -> None:
        """Raise JudgeDownError if F1 on enough of the latest is below `min_f1`."""
        if len(self.recent) < ENOUGH or (f1 := self.metrics()["canary/f1"]) >= self.min_f1:
            return
        raise JudgeDownError(
            f"the judge is not to be trusted: F1 {f1:.2f} on the last {len(self.recent)} solutions of known truth, "
            f"judge.canary_min_f1 is {self.min_f1:g}. Stopped; look at its critiques, restore the judge, and resume"
        )

    def metrics(self) -> dict[str, float]:
        """canary/precision, recall, f1, location, invalid_rate of the latest canaries; {} before the first."""
        if not self.recent:
            return {}
        return {f"canary/{name}": value for name, value in judge_quality(*zip(*self.recent, strict=True)).items()}


@dataclass(eq=False)
class Canaries:
    """A `Judge` that mixes known solutions, as many flawed as sound, into what it passes on to another.

    To that judge they are rollouts like the others. Which they are follows from the seed and the rollouts alone.
    Raises JudgeDownError when F1 on the latest of them falls below `min_f1`.
    """

    judge: Judge
    """Who is asked, and watched."""
    known: Sequence[LabelledSolution]
    """Right solutions with labels; both flawed and sound ones."""
    share: float
    """Canaries for each rollout."""
    min_f1: float = 0.0
    """Below it the judge is not to be trusted; 0: only watch."""
    seed: int = 0
    """Of the choice."""
    results: list[CanaryResult] | None = field(default=None, init=False)
    """Optional list, to which the result of each canary is also appended; the verl worker sends it to the trainer."""

    def __post_init__(self) -> None:
        flawed = [solution for solution in self.known if solution.error_step is not None]
        sound = [solution for solution in self.known if solution.error_step is None]
        if not flawed or not sound:
            raise DataError(f"judge.canaries: {len(flawed)} flawed and {len(sound)} sound solutions; needs both kinds")
        self._kinds = (flawed, sound)
        self._window = Window(self.min_f1)

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Verdict]:
        """The verdicts on the rollouts alone."""
        rng = random.Random(repr((self.seed, [rollout.response for rollout in rollouts])))
        num = int(self.share * len(rollouts) + rng.random())
        drawn = [rng.choice(rng.choice(self._kinds)) for _ in range(num)]
        order = rng.sample(range(len(rollouts) + num), len(rollouts) + num)
        mixed = [*rollouts, *(Rollout(s.problem, _written(s)) for s in drawn)]
        verdicts: dict[int, Verdict] = dict(zip(order, await self.judge([mixed[i] for i in order]), strict=True))
        results = [(verdicts[len(rollouts) + i], s.error_step) for i, s in enumerate(drawn)]
        if self.results is not None:
            self.results += results
        self._window.add(results)
        self._window.check()
        return [verdicts[i] for i in range(len(rollouts))]

    def metrics(self) -> dict[str, float]:
        """Metrics of the latest canaries; {} before the first."""
        return self._window.metrics()


def _written(solution: LabelledSolution) -> str:
    """The solution as a policy would write it: text whose steps are those of the label."""
    joined = ["\n".join(solution.steps), "\n\n".join(solution.steps)]
    return next((text for text in joined if len(split_steps(text)) == len(solution.steps)), joined[-1])


def canaries_of(judge: Judge | None) -> Canaries | None:
    """The canaries of a judge, also when others stand before it."""
    while judge:
        if isinstance(judge, Canaries):
            return judge
        judge = getattr(judge, "judge", None)
    return None


def metrics_of(judge: Judge | None) -> dict[str, float]:
    """Metrics of the canaries of a judge; {} where there are none."""
    found = canaries_of(judge)
    return found.metrics() if found else {}
