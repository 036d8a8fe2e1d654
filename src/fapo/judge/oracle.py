"""A judge that knows the truth, for problems of the miniature."""

from __future__ import annotations

import random

from fapo.data.miniature.oracle import ground_truth
from fapo.data.steps import split_steps
from fapo.types import Judge, Rollout, Verdict


def oracle(false_negative_rate: float = 0.0, false_positive_rate: float = 0.0) -> Judge:
    """Return a judge that is always right, or errs at two rates.

    An error depends on the rollout alone: the same rollout gets the same verdict again.

    Args:
        false_negative_rate: Rate of flawed rollouts that are passed.
        false_positive_rate: Rate of fully correct rollouts that are flagged, at a random step.

    Returns:
        The judge.
    """

    def verdict(rollout: Rollout) -> Verdict:
        error_step = ground_truth(rollout).error_step
        chance = random.Random(f"{rollout.problem.id} {rollout.response}")
        if chance.random() < (false_positive_rate if error_step is None else false_negative_rate):
            num_steps = max(len(split_steps(rollout.response)), 1)
            error_step = chance.randrange(num_steps) if error_step is None else None
        return Verdict.from_step(error_step, "oracle")

    async def judge(rollouts: list[Rollout]) -> list[Verdict]:
        return [verdict(rollout) for rollout in rollouts]

    return judge  # type: ignore[return-value]
