"""Score solutions of a policy, for every engine: check the answer, judge the correct ones, compute the reward."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from fapo.config.schema import (
    DecoupledReward,
    FapoReward,
    FilterReward,
    FirstErrorReward,
    GroupReward,
    JudgedReward,
    PolicyReward,
    RewardConfig,
    StepRatioReward,
)
from fapo.data.trajectory import judged_steps
from fapo.errors import EngineError, UnscoredError
from fapo.judge.circuit_breaker import CircuitBreaker
from fapo.judge.verdicts import FLAGGED_UNREAD
from fapo.rewards import policy as rewards
from fapo.rewards.advantages import group_advantages, group_positions, group_table
from fapo.rewards.checkers import MATH
from fapo.rewards.consistency_filter import filtered_advantages
from fapo.rewards.decoupled import decoupled_advantages
from fapo.rewards.first_error import begins_well, first_error_advantages
from fapo.rewards.verify import Check
from fapo.types import Given, Judge, Reward, Rollout, ScoredRollout, StepRule, Verdict


def checker_breaker(max_failure_rate: float) -> CircuitBreaker:
    """Return the circuit breaker of a checker; it stops a run as that of a judge does."""
    remedy = f"Mend the checker, or restore what it needs, and resume. A rate up to {max_failure_rate:g} is allowed"
    return CircuitBreaker(max_failure_rate, name="the answer checker", remedy=remedy, error=EngineError, causes=())


def unscored_error(rollout: Rollout, verdict: Verdict | None, check_error: str = "") -> UnscoredError:
    """Return the error of a rollout without a reward, which names its problem and the reason.

    Args:
        rollout: Rollout without a reward.
        verdict: Verdict that is not sufficient for a reward; None if the judge was not asked.
        check_error: Reason why the answer could not be checked; empty if it was.

    Returns:
        The error to raise.
    """
    if check_error:
        return UnscoredError(
            f"the answer of a rollout of problem {rollout.problem.id} could not be checked: {check_error}; "
            'set reward.on_unscored to "mask" to train on without it'
        )
    reason = "the judge was not asked"
    if verdict:
        reason = verdict.reason or "the judge says flawed, but names no step"
    return UnscoredError(
        f"no verdict on a rollout of problem {rollout.problem.id}: {reason}; "
        'set reward.on_unscored to "mask" or "correctness_only" to train on without it'
    )


@dataclass(frozen=True)
class PolicyScorer:
    """Score solutions of a policy.

    The answer of each rollout is checked, the judge is asked about the correct ones, and the reward is the sum of
    outcome, penalty for a flaw and length penalty.
    """

    config: PolicyReward
    """Kind of reward, and the rule for rollouts without a verdict."""
    judge: Judge | None
    """Judge that looks for flaws; None for none."""
    max_tokens: int = 0
    """Length limit of a response in tokens, for the overlong penalty."""
    judge_all: bool = False
    """Whether to judge rollouts with a wrong answer, too; the kinds step_ratio and first_error need it."""
    steps: StepRule = "paragraphs"
    """Rule by which the judge splits responses into steps, which the kinds step_ratio and first_error use."""
    max_failure_rate: float = 0.5
    """Largest fraction of the latest verdicts, and of the latest answer checks by a function, that may be failed (see
    `CircuitBreaker`); 1 never stops the run."""
    check: Callable[[Sequence[Rollout]], Awaitable[Sequence[Check]]] = MATH
    """Checker of the answers of rollouts, in order; see `fapo.rewards.checkers.make_checker`."""
    _breaker: CircuitBreaker = field(init=False, repr=False, compare=False)
    _checker_breaker: CircuitBreaker = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_breaker", CircuitBreaker(self.max_failure_rate))
        object.__setattr__(self, "_checker_breaker", checker_breaker(self.max_failure_rate))

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[ScoredRollout]:
        """Return one result for each rollout, in order.

        Args:
            rollouts: Rollouts to score, of any problems.

        Returns:
            Scored rollouts.

        Raises:
            UnscoredError: If a rollout has no reward and `on_unscored` is "raise".
            JudgeDownError: If too many of the latest verdicts failed, or the canaries show a judge that is too bad.
            EngineError: If a checker of the user failed for too many of the latest rollouts.
        """
        checks = await self.check(rollouts)
        errors = [check.failure for check in checks]
        self._checker_breaker.record(errors)
        return await self.score_checked(rollouts, [check.correct for check in checks], errors)

    async def score_checked(
        self, rollouts: Sequence[Rollout], correct: Sequence[bool], errors: Sequence[str]
    ) -> list[ScoredRollout]:
        """Return one result for each rollout with a checked answer, in order.

        Args:
            rollouts: Rollouts to score [num_rollouts].
            correct: Whether the final answer of each is correct [num_rollouts].
            errors: Reason why the answer of each could not be checked, or "" [num_rollouts].

        Returns:
            Scored rollouts.

        Raises:
            UnscoredError: If a rollout has no reward and `on_unscored` is "raise".
            JudgeDownError: If too many of the latest verdicts failed, or the canaries show a judge that is too bad.
        """
        asked = [correct[i] or (self.judge_all and not errors[i]) for i in range(len(rollouts))]
        judged = [i for i in range(len(rollouts)) if asked[i]] if self.judge else []
        verdicts: list[Verdict | None] = [None] * len(rollouts)
        if self.judge and judged:
            for i, verdict in zip(judged, await self.judge([rollouts[i] for i in judged]), strict=True):
                verdicts[i] = verdict
        rows = zip(rollouts, correct, verdicts, errors, strict=True)
        scored = [ScoredRollout(r, c, v, self.reward(r, c, v, error), error) for r, c, v, error in rows]
        self._breaker.record_verdicts(verdict for verdict in verdicts if verdict)
        return scored

    def reward(self, rollout: Rollout, correct: bool, verdict: Verdict | None, check_error: str = "") -> Reward:
        """Return the reward of one rollout, with its parts.

        Args:
            rollout: Rollout to reward.
            correct: Whether its final answer is correct.
            verdict: Verdict on it; None if the judge was not asked.
            check_error: Reason why the answer could not be checked; there is no reward then, whatever `on_unscored` is.

        Returns:
            The reward. Its parts are outcome, flaw and overlong; for an unscored rollout only outcome, or none.

        Raises:
            UnscoredError: If there is no reward and `on_unscored` is "raise".
        """
        if check_error:
            if isinstance(self.config, JudgedReward) and self.config.on_unscored == "raise":
                raise unscored_error(rollout, verdict, check_error)
            return Reward(None)
        parts = {"outcome": rewards.outcome_reward(correct)}
        value: float | None = parts["outcome"]
        if isinstance(self.config, FapoReward):
            errors = (self.config.judge_recall, self.config.judge_false_positive_rate)
            flawed = verdict.flawed if verdict else None
            value = rewards.corrected_reward(correct, flawed, self.config.penalty, *errors)
        elif isinstance(self.config, StepRatioReward):
            steps = judged_steps(rollout, self.steps)
            flawed, error_step = (verdict.flawed, verdict.error_step) if verdict else (None, None)
            if verdict and verdict.reason.startswith(FLAGGED_UNREAD):
                error_step = 0  # an answer without reasoning: none of its steps is right
            if error_step is not None:  # given steps do not count
                error_step -= sum(isinstance(step, Given) for step in steps[:error_step])
            num_steps = max(sum(isinstance(step, str) for step in steps), 1)
            value = rewards.step_ratio_reward(correct, flawed, error_step, num_steps)
        elif isinstance(self.config, GroupReward):
            penalty = self.config.penalty if isinstance(self.config, FirstErrorReward) else 1.0
            value = rewards.fapo_reward(correct, verdict.flawed if verdict else None, penalty)
        if value is None:
            assert isinstance(self.config, JudgedReward)
            if self.config.on_unscored == "raise":
                raise unscored_error(rollout, verdict)
            if self.config.on_unscored == "mask":
                return Reward(None, parts)
            value = parts["outcome"]
        parts["flaw"] = value - parts["outcome"]
        parts["overlong"] = rewards.overlong_penalty(rollout.num_tokens, self.max_tokens, self.config.overlong_buffer)
        return Reward(value + parts["overlong"], parts)


def rescored(scored: ScoredRollout, config: FapoReward) -> ScoredRollout:
    """Return a scored rollout with the reward that it has for other error rates of the judge.

    Args:
        scored: Rollout that a scorer with another `FapoReward` has scored.
        config: Reward with the error rates to use.

    Returns:
        The rollout; it is unchanged if it is wrong, unscored, or without a verdict.
    """
    if scored.reward.value is None or not scored.correct or scored.flawed is None:
        return scored
    rates = config.judge_recall, config.judge_false_positive_rate
    value = rewards.corrected_reward(True, scored.flawed, config.penalty, *rates)
    assert value is not None
    parts = {**scored.reward.parts, "flaw": value - rewards.outcome_reward(True)}
    return replace(scored, reward=Reward(value + parts.get("overlong", 0.0), parts))


def batch_advantages(
    scored: Sequence[ScoredRollout], groups: Sequence[Hashable], reward: RewardConfig | None
) -> npt.NDArray[np.float64]:
    """Return the advantages on which the trainer updates the policy.

    Args:
        scored: Scored rollouts, [num_rollouts].
        groups: Name of the group of each rollout, [num_rollouts].
        reward: Reward of the run; its kind decides how the rollouts of a group are compared. None without one.

    Returns:
        Advantages, [num_rollouts]; 0 for an unscored rollout. For the kind "first_error" those of the wrong steps.

    Raises:
        ValueError: If a reward is infinite.
    """
    rows, columns = group_positions(groups)
    if isinstance(reward, (DecoupledReward, FilterReward)):
        outcome = [None if s.reward.value is None else s.reward.value - s.reward.parts["flaw"] for s in scored]
        outcomes = group_table(outcome, rows, columns)
    if isinstance(reward, DecoupledReward):
        process = [None if s.flawed is None or not s.correct else -float(s.flawed) for s in scored]
        advantages = decoupled_advantages(outcomes, group_table(process, rows, columns), reward.weight)
    elif isinstance(reward, FilterReward):
        sound = [s.reward.value is not None and s.correct and not s.flawed for s in scored]
        wrong = [s.reward.value is not None and not s.correct for s in scored]
        is_sound, is_wrong = (group_table(np.array(mask, dtype=float), rows, columns) == 1 for mask in (sound, wrong))
        advantages = filtered_advantages(outcomes, is_sound, is_wrong, reward.keep)
    elif isinstance(reward, FirstErrorReward):
        return advantages_of_parts(scored, groups)[1]
    else:
        advantages = group_advantages(group_table([s.reward.value for s in scored], rows, columns))
    return np.asarray(advantages[rows, columns])


def advantages_of_parts(
    scored: Sequence[ScoredRollout], groups: Sequence[Hashable]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the advantages of steps before the first error, and of the wrong step, by `first_error_advantages`.

    Args:
        scored: Scored rollouts, [num_rollouts].
        groups: Name of the group of each rollout, [num_rollouts].

    Returns:
        Both advantages, each [num_rollouts]. The first one is 0 for a rollout without steps before a located error; the
        second one holds for the whole of a rollout without a located error.

    Raises:
        ValueError: If a reward is infinite.
    """
    rows, columns = group_positions(groups)
    begin = group_table(np.array([begins_well(s.verdict) for s in scored], dtype=float), rows, columns) == 1
    overlong = group_table([s.reward.parts.get("overlong", 0.0) for s in scored], rows, columns)
    tables = first_error_advantages(group_table([s.reward.value for s in scored], rows, columns), begin, overlong)
    before, after = (np.asarray(table[rows, columns]) for table in tables)
    return before, after
