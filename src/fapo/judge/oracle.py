"""A judge for problems of the miniature: it knows the first wrong step, and may be given error rates."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence

from fapo.data.miniature.oracle import ground_truth
from fapo.data.steps import split_steps
from fapo.types import FlawKind, Judge, Rollout, Verdict


def oracle(
    false_negative_rate: float = 0.0,
    false_positive_rate: float = 0.0,
    blind_to: Collection[FlawKind] = (),
    location_error_rate: float = 0.0,
) -> Judge:
    """Return a judge that knows the truth and errs at three rates, or for some kinds of flaws.

    Errors depend on the rollout alone, so equal rollouts get equal verdicts.

    Args:
        false_negative_rate: Rate of flawed rollouts that are not flagged.
        false_positive_rate: Rate of fully correct rollouts that are flagged, at a random step.
        blind_to: Kinds of flaws that are never flagged.
        location_error_rate: Rate of flagged flawed rollouts, of several steps, for which another step than the first
            wrong one is named, at random.

    Returns:
        A judge for problems of the miniature. Its attribute `steps` is the rule by which it splits responses.
    """

    def verdict(rollout: Rollout) -> Verdict:
        """Return the verdict on one rollout."""
        truth = ground_truth(rollout)
        if truth.flaw in blind_to:
            return Verdict.from_step(None, "oracle")
        error_step = truth.error_step
        num_steps = max(len(split_steps(rollout.response, "lines")), 1)
        chance = random.Random(f"{rollout.problem.id} {rollout.response}")
        if chance.random() < (false_positive_rate if error_step is None else false_negative_rate):
            error_step = chance.randrange(num_steps) if error_step is None else None
        elif error_step is not None and num_steps > 1 and chance.random() < location_error_rate:
            error_step = chance.choice([step for step in range(num_steps) if step != error_step])
        return Verdict.from_step(error_step, "oracle")

    async def judge(rollouts: Sequence[Rollout]) -> list[Verdict]:
        """Return one verdict for each rollout, in order."""
        return [verdict(rollout) for rollout in rollouts]

    judge.steps = "lines"  # type: ignore[attr-defined]  # as a judge that is an object has it
    return judge
