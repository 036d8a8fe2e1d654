"""Audit of the judge: a second, better judge reads a random sample of its verdicts on the policy's own rollouts.

Canaries show whether the judge still judges the same solutions as before. They cannot show that the policy has learnt
to make a flaw that the judge does not see. An audit can: it compares the verdicts of both judges on the rollouts that
are trained on. Its verdicts enter no reward. If asked to, rewards are corrected for the rates that it measures, or the
second judge takes the place of one that is too bad.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from fapo.config.schema import AuditConfig, Config, FapoReward
from fapo.errors import JudgeDownError
from fapo.evaluation.intervals import difference_interval, f1_interval, grouped_difference_interval, wilson_interval
from fapo.inference.concurrency import in_thread
from fapo.inference.usage import Usage, find_usage
from fapo.judge.from_config import make_judge
from fapo.judge.quality import PRF, flawed_positive_prf, ratio
from fapo.judge.verdicts import verdict_row
from fapo.rewards.scorer import PolicyScorer, rescored
from fapo.types import Judge, ScoredRollout, Verdict

WINDOW = 256
"""Window size: the rates are those of the last 256 audited verdicts."""
MIN_AUDITED = 32
"""Minimum number of audited verdicts before the run is stopped for Youden's J, or rewards are corrected."""
MIN_CORRECTED_J = 0.2
"""Smallest Youden's J for which rewards are corrected: a verdict changes a reward by lambda / J, at most 5 lambda."""


def conservative_rates(found: PRF) -> tuple[float, float]:
    """Return the error rates for which rewards are corrected: the ends of the intervals at which they change least.

    They are the upper end of the recall and the lower end of the false positive rate, of 95 % (Wilson). The true
    Youden's J is then hardly ever above the assumed one, so that a flawed positive hardly ever loses more than lambda
    (`fapo.rewards.theory.corrected_mean`). Without verdicts the rates are 1 and 0, those of no correction. The
    estimates themselves would on average correct too much, because the correction has J in the denominator. They may
    be no better than chance, where it is not defined. J is kept at MIN_CORRECTED_J or above.

    Args:
        found: Counts of the judge's verdicts, by the second judge.

    Returns:
        Recall and false positive rate.
    """
    _, recall = wilson_interval(found.tp, found.num_flawed)
    false_positive_rate, _ = wilson_interval(found.fp, found.fp + found.tn)
    if recall - false_positive_rate < MIN_CORRECTED_J:
        false_positive_rate = min(false_positive_rate, 1 - MIN_CORRECTED_J)
        recall = min(1.0, false_positive_rate + MIN_CORRECTED_J)
    return recall, false_positive_rate


@dataclass(frozen=True)
class AuditedVerdict:
    """Verdicts of both judges on one rollout."""

    flawed: bool
    """Whether the judge of the run has flagged the rollout."""
    gold: bool | None
    """Whether the second judge has flagged it; None without a verdict of the second judge."""


@dataclass(eq=False)
class AuditWindow:
    """The latest audited verdicts, and the limit of what they say about the judge."""

    min_j: float = 0.0
    """Youden's J below which the judge is too bad if its interval is below it, too; 0: it never is."""
    recent: deque[AuditedVerdict] = field(default_factory=lambda: deque(maxlen=WINDOW), init=False)
    """The last WINDOW audited verdicts."""

    def add(self, audited: Iterable[AuditedVerdict]) -> None:
        """Add audited verdicts, the latest last."""
        self.recent.extend(audited)

    def counts(self) -> PRF:
        """Return the counts of the judge on rollouts with two verdicts, with the second judge as the truth."""
        pairs = [(a.flawed, a.gold) for a in self.recent if a.gold is not None]
        return flawed_positive_prf([flawed for flawed, _ in pairs], [bool(gold) for _, gold in pairs])

    def corrected(self, reward: FapoReward) -> FapoReward:
        """Return a reward with the rates of `conservative_rates`; unchanged below MIN_AUDITED verdicts."""
        found = self.counts()
        if found.n < MIN_AUDITED:
            return reward
        recall, false_positive_rate = conservative_rates(found)
        return replace(reward, judge_recall=recall, judge_false_positive_rate=false_positive_rate)

    def metrics(self) -> dict[str, float]:
        """Return the rates of the judge, with the second judge as the truth; {} before the first audit.

        audit/num is the number of rollouts with two verdicts, audit/invalid_rate the rate of those without one of the
        second judge. audit/recall, false_positive_rate, f1 and youden_j are those of the judge. audit/gap is the false
        positive ratio by the second judge minus that by the judge: where it grows, the policy makes flaws that the
        judge does not see. Each of the five has a 95 % interval, with _low and _high behind its name: Wilson's for the
        rates, `f1_interval`, and Newcombe's for J and gap, which is that for pairs.
        """
        if not self.recent:
            return {}
        found = self.counts()
        num_fine = found.fp + found.tn
        pairs = [(a.gold and not a.flawed, 1, a.flawed and not a.gold, 1) for a in self.recent if a.gold is not None]
        values = {
            "num": float(found.n),
            "invalid_rate": 1 - found.n / len(self.recent),
            "recall": found.recall,
            "false_positive_rate": ratio(found.fp, num_fine),
            "f1": found.f1,
            "youden_j": found.youden_j,
            "gap": ratio(found.fn - found.fp, found.n),
        }
        intervals = {
            "recall": wilson_interval(found.tp, found.num_flawed),
            "false_positive_rate": wilson_interval(found.fp, num_fine),
            "f1": f1_interval(found.tp, found.fp, found.fn),
            "youden_j": difference_interval(found.tp, found.num_flawed, found.fp, num_fine),
            "gap": grouped_difference_interval(*zip(*pairs, strict=True)) if pairs else (math.nan, math.nan),
        }
        for name, (low, high) in intervals.items():
            values |= {f"{name}_low": low, f"{name}_high": high}
        return {f"audit/{name}": value for name, value in values.items()}

    @property
    def is_low(self) -> bool:
        """Whether J on at least MIN_AUDITED verdicts and its interval are below `min_j`.

        Where the second judge finds no flawed or no fully correct rollout, J is not known, but its upper bound is: the
        rate that is missing is taken for 1, or for 0 if it is the false positive rate.
        """
        found = self.counts()
        return found.n >= MIN_AUDITED and self._highest_j(found) < self.min_j

    @staticmethod
    def _highest_j(found: PRF) -> float:
        """Return the upper end of the interval of J; of the rate that is known, where the other one is not."""
        num_fine = found.fp + found.tn
        if found.num_flawed and num_fine:
            return difference_interval(found.tp, found.num_flawed, found.fp, num_fine)[1]
        return wilson_interval(found.tp, found.num_flawed)[1] - wilson_interval(found.fp, num_fine)[0]

    @property
    def doubt(self) -> str:
        """The numbers for which the judge is not to be trusted, as text."""
        found = self.counts()
        value, none = f" {found.youden_j:.2f},", ""
        if math.isnan(found.youden_j):
            kind = "fully correct" if found.num_flawed else "flawed"
            value, none = "", f" (the second judge found none of them {kind})"
        return (
            f"the judge is not to be trusted: Youden's J{value} at most {self._highest_j(found):.2f}, on the last "
            f"{found.n} rollouts that judge.audit read{none}, judge.audit.min_j is {self.min_j:g}"
        )

    def check(self) -> None:
        """Raise JudgeDownError if the judge is too bad."""
        if self.is_low:
            raise JudgeDownError(
                f"{self.doubt}. Stopped; compare both critiques in audit.jsonl, train or choose another judge, or set "
                'judge.audit.on_low_j to "switch", and resume'
            )


T = TypeVar("T")


def _at_once(run: Callable[[], T]) -> Future[T]:
    """Run a function and return its result as a future."""
    result: Future[T] = Future()
    result.set_result(run())
    return result


class JudgeAudit:
    """The second judge of one process. A served one reads while the policy is updated."""

    def __init__(self, config: AuditConfig, seed: int) -> None:
        """Build the second judge.

        Args:
            config: The [judge.audit] table.
            seed: Seed of the choice of rollouts; processes have different ones.

        Raises:
            ConfigError: If the template or the model of the second judge cannot be loaded.
            DataError: If its cache cannot be used.
        """
        self.config, self._seed = config, seed
        self.judge = make_judge(config.second) if config.second else None
        """The second judge; None for a person, who labels the drawn rollouts later."""
        self.meter = find_usage(self.judge)
        """Running sum of its tokens; None for a judge without tokens."""
        # a model in this process would draw random numbers at the same time as the training
        self._start = (
            partial(in_thread, name="fapo-audit") if config.second and config.second.num_requests else _at_once
        )
        self._begun: tuple[int, list[ScoredRollout], Future[list[Verdict | None]]] | None = None

    def begin(self, step: int, scored: Sequence[ScoredRollout]) -> None:
        """Draw rollouts of a step at random, and have the second judge read them.

        Args:
            step: Number of the step.
            scored: Scored rollouts of the step; those with a correct answer and a verdict are drawn from.
        """
        rng = random.Random(repr((self._seed, step)))
        judged = [s for s in scored if s.correct and s.flawed is not None]
        drawn = [s for s in judged if rng.random() < self.config.rate]
        self._begun = step, drawn, self._start(partial(self._read, drawn))

    def take_usage(self) -> Usage:
        """Return the tokens of the second judge since the last call of this function."""
        return self.meter.take() if self.meter else Usage()

    def score(self, scored: Sequence[ScoredRollout], scorer: PolicyScorer) -> list[ScoredRollout]:
        """Score rollouts by the verdicts of the second judge in place of those that they have.

        Args:
            scored: Scored rollouts; their answers are not checked again.
            scorer: Scorer with the second judge.

        Returns:
            The rollouts, with the verdicts and rewards of the scorer.
        """
        checked = [s.rollout for s in scored], [s.correct for s in scored], [s.check_error for s in scored]

        def score() -> list[ScoredRollout]:
            return asyncio.run(scorer.score_checked(*checked))

        return self._start(score).result()

    def _read(self, drawn: Sequence[ScoredRollout]) -> list[Verdict | None]:
        """Return the verdicts of the second judge; None for each that a person gives later."""

        async def ask(judge: Judge) -> list[Verdict | None]:
            """Return the verdicts; a coroutine of this function, because a judge may return any awaitable."""
            return list(await judge([s.rollout for s in drawn]))

        if self.judge is None:
            return [None] * len(drawn)
        return asyncio.run(ask(self.judge)) if drawn else []

    def finish(self) -> tuple[list[AuditedVerdict], list[dict[str, Any]]]:
        """Wait for the second judge.

        Returns:
            Verdicts of both judges on the rollouts that were drawn, and rows for audit.jsonl; both empty if nothing has
            begun.
        """
        if not self._begun:
            return [], []
        (step, drawn, verdicts), self._begun = self._begun, None
        found = list(zip(drawn, verdicts.result(), strict=True))
        rows = [_row(step, s, verdict) for s, verdict in found]
        return audited_verdicts(rows), rows


def correct_rewards(
    scored: Sequence[ScoredRollout], config: Config, window: AuditWindow
) -> tuple[list[ScoredRollout], dict[str, float]]:
    """Correct the rewards of a training batch for the rates of its judge, if `judge.audit.correct` is set.

    Args:
        scored: Scored rollouts of the batch, or a part of them.
        config: Config of the run.
        window: Audited verdicts of the steps before.

    Returns:
        The rollouts, and the rates for which their rewards are corrected as metrics; {} if they are not to be.
    """
    if not (config.audit and config.audit.correct and isinstance(config.reward, FapoReward)):
        return list(scored), {}
    reward = window.corrected(config.reward)
    used = {"judge_recall": reward.judge_recall, "judge_false_positive_rate": reward.judge_false_positive_rate}
    return [rescored(s, reward) for s in scored], {f"reward/{name}": value for name, value in used.items()}


def warn_of_switch(window: AuditWindow) -> None:
    """Log that the second judge takes the place of the first one, and for which numbers."""
    logging.getLogger("fapo").warning("%s. From now on the second judge judges instead", window.doubt)


def audited_verdicts(rows: Iterable[dict[str, Any]]) -> list[AuditedVerdict]:
    """Return the verdicts in rows of audit.jsonl, but for those that a person gives later."""
    return [
        AuditedVerdict(row["judge"]["flawed"], row["second_judge"]["flawed"])
        for row in rows
        if row["second_judge"]["status"] != "skipped"
    ]


def _row(step: int, scored: ScoredRollout, verdict: Verdict | None) -> dict[str, Any]:
    """Return the row of an audited rollout in audit.jsonl."""
    rollout = scored.rollout
    return {
        "step": step,
        "problem_id": rollout.problem.id,
        "problem": rollout.problem.text,
        "response": rollout.response,
        "judge": verdict_row(scored.verdict),
        "second_judge": verdict_row(verdict),
    }
