"""Rules that stop a run or replace its judge, for every engine.

They look at the rollouts of all processes or workers together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from fapo.config.schema import Config, FallibleJudge, JudgeConfig, JudgedReward
from fapo.judge.canaries import CanaryResult, CanaryWindow
from fapo.judge.circuit_breaker import CircuitBreaker
from fapo.rewards.scorer import checker_breaker, unscored_error
from fapo.training.judge_audit import AuditWindow
from fapo.types import ScoredRollout


def without_stops(config: Config) -> Config:
    """Return a config with a scorer that raises no error of these rules; a `StopRules` of the whole config does."""
    reward, judge = config.reward, config.judge
    if isinstance(reward, JudgedReward) and reward.on_unscored == "raise":
        reward = replace(reward, on_unscored="mask")
    if judge:
        judge = replace(judge, canary_min_f1=0.0)
    if isinstance(judge, FallibleJudge):
        judge = replace(judge, max_failure_rate=1.0)
    return replace(config, reward=reward, judge=judge)


class StopRules:
    """Rules of a config.

    They are `reward.on_unscored = "raise"`, `judge.max_failure_rate`, `judge.canary_min_f1` and `judge.audit.min_j`.
    The rule of `judge.max_failure_rate` holds for a checker of the user, too; without a judge the rate is its default.

    With `judge.audit.on_low_j = "switch"` the second judge takes the place of the first one below `min_j`. This depends
    on the audited verdicts alone, so a resumed run finds it out again. Then audits and canaries, which watch the first
    judge, have ended.
    """

    def __init__(self, config: Config) -> None:
        judge, reward = config.judge, config.reward
        self.canaries = CanaryWindow(judge.canary_min_f1 if judge else 0.0)
        """The latest canaries of the run."""
        self.audit = AuditWindow(config.audit.min_j if config.audit else 0.0)
        """The latest audited verdicts of the run."""
        self.judge = judge
        """Settings of the judge that makes the rewards; None without one."""
        self.switched = False
        """Whether it is the second judge."""
        self._second = config.audit.second if config.audit and config.audit.switches else None
        self._breaker = _breaker(judge)
        self._checker_breaker = checker_breaker(
            judge.max_failure_rate if isinstance(judge, FallibleJudge) else FallibleJudge.max_failure_rate
        )
        self._needs_verdicts = isinstance(reward, JudgedReward) and reward.on_unscored == "raise"

    def switch_if_low(self) -> bool:
        """Return whether the second judge takes the place of the first one from now on."""
        if self.switched or not self._second or not self.audit.is_low:
            return False
        self.switched, self.judge, self._breaker = True, self._second, _breaker(self._second)
        return True

    def add_canaries(self, results: Iterable[CanaryResult]) -> None:
        """Add results of canaries, unless the judge that they watch has been replaced."""
        if not self.switched:
            self.canaries.add(results)

    def canary_metrics(self) -> dict[str, float]:
        """Return the metrics of the latest canaries; {} without any, and for the second judge."""
        return {} if self.switched else self.canaries.metrics()

    def audit_metrics(self) -> dict[str, float]:
        """Return the metrics of the latest audits; {} without any.

        In a run in which the second judge may take over, audit/switched is 1 for a step that it has judged. There are
        no other metrics of audits then.
        """
        if self.switched:
            return {"audit/switched": 1.0}
        return self.audit.metrics() | ({"audit/switched": 0.0} if self._second else {})

    def check(self, scored: Sequence[ScoredRollout], canaries: Iterable[CanaryResult] = ()) -> None:
        """Stop the run as the config says.

        Args:
            scored: Scored rollouts of a batch, of all processes.
            canaries: Results of canaries that are not in `self.canaries` yet.

        Raises:
            UnscoredError: If there is no verdict on a rollout, and `reward.on_unscored` is "raise".
            JudgeDownError: If the judge fails for too many rollouts, or is too bad on canaries or in audits.
            EngineError: If a checker of the user fails for too many rollouts.
        """
        self.add_canaries(canaries)
        for s in scored:
            if s.reward.value is None and self._needs_verdicts:
                raise unscored_error(s.rollout, s.verdict, s.check_error)
        if not self.switched:
            self.canaries.check()
        if not self._second:
            self.audit.check()
        self._breaker.record_verdicts(s.verdict for s in scored if s.verdict)
        self._checker_breaker.record([s.check_error for s in scored])


def _breaker(judge: JudgeConfig | None) -> CircuitBreaker:
    """Return the circuit breaker of a judge; it never opens for one that cannot fail."""
    return CircuitBreaker(judge.max_failure_rate if isinstance(judge, FallibleJudge) else 1.0)
