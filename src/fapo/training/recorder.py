"""Recorder: writes scored batches into the run folder and computes their metrics."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from fapo.config.schema import Config, FirstErrorReward, GroupReward
from fapo.inference.usage import Usage, find_usage
from fapo.judge.canaries import CanaryResult, find_canaries
from fapo.judge.switching import find_switch
from fapo.judge.verdict_counts import VerdictCounts, shortened
from fapo.rewards.critique_scorer import Scorer
from fapo.rewards.first_error import Parts, parts_of_all
from fapo.rewards.from_config import scored_truth
from fapo.rewards.scorer import PolicyScorer, advantages_of_parts, batch_advantages
from fapo.training.datasets import TRAIN
from fapo.training.judge_audit import JudgeAudit, audited_verdicts, correct_rewards, warn_of_switch
from fapo.training.rollout_row import rollout_row
from fapo.training.run_folder import RunFolder
from fapo.training.step_metrics import (
    advantage_metrics,
    flawed_rho_metrics,
    genrm_metrics,
    policy_metrics,
    usage_metrics,
)
from fapo.training.stop_rules import StopRules
from fapo.types import GroundTruth, Problem, Rollout, ScoredRollout


@dataclass(frozen=True)
class Part:
    """Part of a batch that one process has scored, without texts; the processes exchange their parts."""

    rank: int
    """Number of the process, from 0."""
    scored: Sequence[ScoredRollout]
    """Scored rollouts, [batch_size / num_processes]."""
    truths: Sequence[GroundTruth | None]
    """Truth about each rollout, None where it is unknown, [batch_size / num_processes]."""
    canaries: Sequence[CanaryResult]
    """Results of the canaries that were judged with them."""
    usage: Usage
    """Tokens of the judge since the last batch."""


T = TypeVar("T")


class Gather(Protocol):
    """Function that processes call at once, each with a list."""

    def __call__(self, items: list[T], /) -> list[T]:
        """Return the items of the lists of all processes, in the order of their numbers."""


class Recorder:
    """Recorder of a run. Rollouts are written at once; metrics are computed when a step or a validation is complete.

    With several processes each one writes its own rollouts. Advantages, metrics and the rules that stop a run are those
    of the rollouts of all processes.
    """

    def __init__(self, config: Config, folder: RunFolder, scorer: Scorer, gather: Gather = list) -> None:
        """Start without rollouts.

        Args:
            config: Config of the run.
            folder: Run folder of this process.
            scorer: Scorer of the rollouts.
            gather: Function that gathers the parts of a batch from all processes; by default there is one process.
        """
        self.config, self.folder, self.scorer, self.gather = config, folder, scorer, gather
        self.trainer: Any = None
        self.evaluating: str | None = None
        """Name of the validation set that is being measured; None while training."""
        self.verdicts = VerdictCounts()
        """Counts of the verdicts on training rollouts."""
        self.parts: list[Parts] = []
        """Parts of this process's rollouts in the last training batch; empty unless the reward is "first_error"."""
        self.measured: dict[str, float] = {}
        """Metrics of the training step that is being logged."""
        self._taken: list[ScoredRollout] = []
        self._batches: dict[str, list[tuple[ScoredRollout, GroundTruth | None, float | None]]] = defaultdict(list)
        self._times_seen: Counter[str] = Counter()
        self._stop_rules = StopRules(config)
        self._usage: dict[str, Usage] = defaultdict(Usage)
        self._meter = find_usage(scorer.judge) if isinstance(scorer, PolicyScorer) else None
        self._canaries = find_canaries(scorer.judge) if isinstance(scorer, PolicyScorer) else None
        if self._canaries:
            self._canaries.results = []
        self._audit = JudgeAudit(config.audit, config.seed + (folder.rank << 32)) if config.audit else None
        self._corrected_for: dict[str, float] = {}
        if self._audit:
            gather([])  # the first process has dropped the rows of steps that are repeated
            self._stop_rules.audit.add(audited_verdicts(folder.earlier_audits()))
            self._switch_if_low()

    @property
    def step(self) -> int:
        """Number of training steps (generation batches) that are done."""
        return int(self.trainer.state.global_step) // self.config.optim.updates_per_batch

    def record(self, scored: Sequence[ScoredRollout], columns: Mapping[str, list[Any]]) -> None:
        """Take a batch of scored rollouts of this process; the reward function calls this with each batch.

        Args:
            scored: Scored rollouts in the order of the batch, [batch_size / num_processes].
            columns: Not used.
        """
        self._taken.extend(scored)

    def write(self) -> Sequence[float | None] | None:
        """Write the rollouts that were taken. All processes call it at once, in their main threads.

        A validation counts each problem once: processes get equal batches, so that some get problems again.

        Returns:
            Numbers that take the place of the rewards of all processes, in their order, [batch_size]: advantages for a
            reward that compares a group in another way, or corrected rewards, None for an unscored rollout. None if the
            rewards stay as they are.

        Raises:
            UnscoredError: If there is no verdict on a rollout, and `reward.on_unscored` is "raise".
            JudgeDownError: If the judge fails for too many rollouts, or is too bad on canaries or in audits.
        """
        taken, self._taken = self._taken, []
        if not self.evaluating:
            taken, self._corrected_for = correct_rewards(taken, self.config, self._stop_rules.audit)
        parts = self.gather([self._part(taken)])
        scored = [s for part in parts for s in part.scored]
        truths = [truth for part in parts for truth in part.truths]
        split = self.evaluating or TRAIN
        size = self.config.validation.num_samples if self.evaluating else self.config.rollout.group_size
        groups = [i // size for i in range(len(scored))]
        start = sum(len(part.scored) for part in parts if part.rank < self.folder.rank)
        advantages: list[float | None] = [None] * len(scored)
        if split == TRAIN and isinstance(self.config.reward, FirstErrorReward):
            assert isinstance(self.scorer, PolicyScorer)
            before, error = advantages_of_parts(scored, groups)
            own = slice(start, start + len(taken))
            share = self.config.reward.share_credit
            self.parts = parts_of_all(taken, self.scorer.steps, before[own], error[own], share)
            advantages = [*error]
        elif size > 1:
            advantages = [*batch_advantages(scored, groups, self.config.reward)]
        self._usage[split] = sum((part.usage for part in parts), self._usage[split])
        counted = [self._is_new(s) for s in scored]
        rows = zip(scored, truths, advantages, strict=True)
        self._batches[split].extend(row for row, new in zip(rows, counted, strict=True) if new)
        # Rollouts of a training batch belong to the step that they lead to.
        step = self.step + (0 if self.evaluating else 1)
        self.folder.rollouts(
            {"step": step, "split": split, **rollout_row(s, advantages[i], truths[i])}
            for i, s in enumerate(taken, start)
            if counted[i]
        )
        if split == TRAIN and self._audit and not self._stop_rules.switched:
            self._audit.begin(step, taken)
        if split == TRAIN and not self.folder.rank:
            self.verdicts.watch(s.verdict for s in scored if s.verdict)
        self._stop_rules.check(scored, [result for part in parts for result in part.canaries])
        if split == TRAIN and isinstance(self.config.reward, GroupReward):
            return advantages
        return [s.reward.value for s in scored] if split == TRAIN and self._corrected_for else None

    def _part(self, taken: Sequence[ScoredRollout]) -> Part:
        """Return the rollouts of this process and the latest results of its canaries."""
        canaries = self._canaries.results if self._canaries and self._canaries.results else []
        if self._canaries:
            self._canaries.results = []
        return Part(
            self.folder.rank,
            [without_texts(s) for s in taken],
            [scored_truth(s, self.scorer) for s in taken],
            [(shortened(verdict), label) for verdict, label in canaries],
            self._meter.take() if self._meter else Usage(),
        )

    def _is_new(self, scored: ScoredRollout) -> bool:
        """Return whether a rollout counts: in a validation the first `num_samples` of a problem do."""
        if not self.evaluating:
            return True
        self._times_seen[scored.rollout.problem.id] += 1
        return self._times_seen[scored.rollout.problem.id] <= self.config.validation.num_samples

    def summary(self, split: str) -> dict[str, float]:
        """Return the metrics of the batches of a split since the last call; {} without batches.

        All processes call it at once.
        """
        rows = self._batches.pop(split, [])
        self._times_seen.clear()
        if not rows:
            return {}
        scored, truths = [s for s, _, _ in rows], [truth for _, truth, _ in rows]
        if self.config.task == "genrm":
            return genrm_metrics(scored, [truth for truth in truths if truth])
        out = policy_metrics(scored, truths) | usage_metrics(self._usage.pop(split, Usage()), self._stop_rules.judge)
        if split == TRAIN:
            out |= self._stop_rules.canary_metrics() | self._audit_metrics() | self._corrected_for
            group_size = self.config.rollout.group_size
            out |= advantage_metrics(scored, [advantage for _, _, advantage in rows], truths)
            out |= flawed_rho_metrics(scored, group_size, truths)
        return out

    def _audit_metrics(self) -> dict[str, float]:
        """Wait for the second judge, write its verdicts, and return the metrics of the latest ones."""
        if not self._audit:
            return {}
        if self._stop_rules.switched:
            return self._stop_rules.audit_metrics()
        audited, rows = self._audit.finish()
        self.folder.audits(rows)
        self._stop_rules.audit.add(self.gather(audited))
        usage = sum(self.gather([self._audit.take_usage()]), Usage())
        out = self._stop_rules.audit_metrics() | usage_metrics(usage, self._audit.config.second, "audit")
        self._switch_if_low()
        return out

    def _switch_if_low(self) -> None:
        """Let the second judge judge from now on, if the audited verdicts say so; the same in all processes."""
        if not self._audit or not self._stop_rules.switch_if_low():
            return
        assert isinstance(self.scorer, PolicyScorer)
        switch = find_switch(self.scorer.judge)
        assert switch, "make_judge has put it there"
        switch.second, self._meter = self._audit.judge, self._audit.meter
        if self._canaries:
            self._canaries.rate = 0.0
        if not self.folder.rank:
            warn_of_switch(self._stop_rules.audit)


def without_texts(scored: ScoredRollout) -> ScoredRollout:
    """Return a scored rollout without problem, response and critique, on which no metric depends."""
    given = scored.rollout
    rollout = Rollout(Problem(given.problem.id, "", ""), "", given.num_tokens, given.truncated)
    return replace(scored, rollout=rollout, verdict=scored.verdict and shortened(scored.verdict))
