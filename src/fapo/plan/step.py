"""One step of training, simulated: rollouts, the judge behind them, the update. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fapo.plan.pool import Pool, finish_times
from fapo.plan.workload import Workload


@dataclass(frozen=True)
class Speeds:
    """How fast the parts of a step are."""

    policy: Pool
    """Servers of the rollouts."""
    judge: Pool
    """Servers of the judge."""
    read_share: float
    """What a token that the judge reads costs, as a share of one that it writes with all its slots in use."""
    update_seconds: float
    """Seconds of the update for each token, prompts included."""


@dataclass(frozen=True)
class Step:
    """Seconds of one step."""

    replicas: int
    """Servers of the judge."""
    rollout: float
    """Until the last rollout is written."""
    exposed: float
    """From then until the last verdict is there."""
    update: float
    """Log-probabilities, gradients, optimizer."""

    @property
    def total(self) -> float:
        """The whole step, without validation, checkpoints and the transfer of weights."""
        return self.rollout + self.exposed + self.update

    @property
    def ratio(self) -> float:
        """The step over the same one without a judge."""
        return self.total / (self.rollout + self.update)


def simulate(work: Workload, speeds: Speeds) -> Step:
    """A step: each rollout goes to the judge as soon as it is written, and the update waits for the last verdict.

    What the judge reads of a prompt is charged as tokens to write, `read_share` of one for each.
    """
    written = finish_times([0.0] * len(work.responses), work.responses, speeds.policy)
    end = max(written, default=0.0)
    asked = [(written[i], i, own) for i, critiques in enumerate(work.critiques) for own in critiques]
    lengths = [own + speeds.read_share * (work.judge_prompt + work.responses[i]) for _, i, own in asked]
    verdicts = finish_times([time for time, _, _ in asked], lengths, speeds.judge)
    tokens = sum(work.responses) + len(work.responses) * work.question
    return Step(
        replicas=speeds.judge.replicas,
        rollout=end,
        exposed=max(0.0, max(verdicts, default=0.0) - end),
        update=tokens * speeds.update_seconds,
    )


def with_replicas(work: Workload, speeds: Speeds, replicas: int) -> Step:
    """The step with so many servers of the judge."""
    return simulate(work, replace(speeds, judge=replace(speeds.judge, replicas=replicas)))


def smallest_pool(work: Workload, speeds: Speeds, share: float, most: int) -> tuple[int, bool]:
    """The fewest servers of the judge, up to `most`, with which it lengthens a step by no more than this share.

    Where no number will do: the fewest whose step is no longer than the step of `most` by more than this share. Also
    says which of the two. More are never slower, so halving the interval finds them.
    """
    best = with_replicas(work, speeds, most)
    reached = best.ratio <= 1 + share
    longest = (1 + share) * (best.rollout + best.update if reached else best.total)
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if with_replicas(work, speeds, middle).total <= longest else (middle, high)
    return high, reached
