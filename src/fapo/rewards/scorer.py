"""Rollouts -> scored rollouts: check the answer, ask the judge where it matters, reward. The same for every engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from fapo.config.schema import FapoReward, JudgedReward, PolicyReward, StepRatioReward
from fapo.data.steps import split_steps
from fapo.errors import UnscoredError
from fapo.judge.genrm import CircuitBreaker
from fapo.rewards import policy as rewards
from fapo.rewards import verify as answers
from fapo.rewards.advantages import group_advantages
from fapo.types import Judge, Reward, Rollout, Scored, Verdict


def no_verdict(rollout: Rollout, verdict: Verdict | None) -> UnscoredError:
    """The error that says which rollout has no verdict, why, and what to do."""
    why = "the judge was not asked"
    if verdict:
        why = verdict.reason or "the judge says flawed, but names no step"
    return UnscoredError(
        f"no verdict on a rollout of problem {rollout.problem.id}: {why}; "
        'set reward.on_unscored to "mask" or "correctness_only" to train on without it'
    )


@dataclass(frozen=True)
class PolicyScorer:
    """Scores solutions: outcome, verdict on the correct ones, penalty, length."""

    config: PolicyReward
    """Which reward, and what happens without a verdict."""
    judge: Judge | None
    """Who looks for flaws; None: nobody."""
    max_tokens: int = 0
    """Length limit of a response, for overlong shaping."""
    judge_all: bool = False
    """Ask about wrong rollouts too (needed by the step-ratio reward)."""
    max_failure_rate: float = 0.5
    """Largest fraction of the latest judgements that may fail (see `CircuitBreaker`); 1 never stops the run."""
    check: Callable[[Sequence[tuple[str, str]]], Awaitable[Sequence[answers.Check]]] = answers.acheck_many
    """Who compares (response, reference) pairs."""
    _breaker: CircuitBreaker = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_breaker", CircuitBreaker(self.max_failure_rate))

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Scored]:
        """One result for each rollout, in order. Raises UnscoredError, JudgeDownError as configured."""
        checks = await self.check([(r.response, r.problem.reference) for r in rollouts])
        correct = [check.correct for check in checks]
        asked = [i for i in range(len(rollouts)) if correct[i] or self.judge_all] if self.judge else []
        verdicts: list[Verdict | None] = [None] * len(rollouts)
        if self.judge and asked:
            for i, verdict in zip(asked, await self.judge([rollouts[i] for i in asked]), strict=True):
                verdicts[i] = verdict
        rows = zip(rollouts, correct, verdicts, strict=True)
        scored = [Scored(r, c, v, self.reward(r, c, v)) for r, c, v in rows]
        self._breaker.record_verdicts(verdict for verdict in verdicts if verdict)
        return scored

    def reward(self, rollout: Rollout, correct: bool, verdict: Verdict | None) -> Reward:
        """Return the reward of one rollout, with its parts."""
        parts = {"outcome": rewards.outcome_reward(correct)}
        value: float | None = parts["outcome"]
        if isinstance(self.config, FapoReward):
            errors = (self.config.judge_recall, self.config.judge_false_positive_rate)
            flawed = verdict.flawed if verdict else None
            value = rewards.corrected_reward(correct, flawed, self.config.penalty, *errors)
        elif isinstance(self.config, StepRatioReward):
            steps = max(len(split_steps(rollout.response)), 1)
            flawed, error_step = (verdict.flawed, verdict.error_step) if verdict else (None, None)
            value = rewards.step_ratio_reward(correct, flawed, error_step, steps)
        if value is None:
            assert isinstance(self.config, JudgedReward)
            if self.config.on_unscored == "raise":
                raise no_verdict(rollout, verdict)
            if self.config.on_unscored == "mask":
                return Reward(None, parts)
            value = parts["outcome"]
        parts["flaw"] = value - parts["outcome"]
        parts["overlong"] = rewards.overlong_penalty(rollout.num_tokens, self.max_tokens, self.config.overlong_buffer)
        return Reward(value + parts["overlong"], parts)


def advantages_of(scored: Sequence[Scored], group_size: int) -> np.ndarray:
    """Advantages [num_rollouts] of consecutive groups, as the trainer computes them."""
    values = np.array([np.nan if s.reward.value is None else s.reward.value for s in scored], dtype=float)
    return group_advantages(values.reshape(-1, group_size)).reshape(-1)
