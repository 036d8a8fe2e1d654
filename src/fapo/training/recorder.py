"""Recorder: writes scored batches into the run folder and computes their metrics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from fapo.config.schema import Config
from fapo.judge.canaries import canary_metrics
from fapo.judge.verdict_counts import VerdictCounts
from fapo.rewards.critique_scorer import Scorer
from fapo.rewards.from_config import scored_truth
from fapo.rewards.scorer import PolicyScorer, batch_advantages
from fapo.training.rollout_row import rollout_row
from fapo.training.run_folder import RunFolder
from fapo.training.step_metrics import advantage_metrics, flawed_rho_metrics, genrm_metrics, policy_metrics
from fapo.types import ScoredRollout


class Recorder:
    """Recorder of a run. Rollouts are written at once; metrics are computed when a step or a validation is complete."""

    def __init__(self, config: Config, folder: RunFolder, scorer: Scorer) -> None:
        self.config, self.folder, self.scorer = config, folder, scorer
        self.trainer: Any = None
        self.batches: dict[str, list[ScoredRollout]] = defaultdict(list)
        self.evaluating: str | None = None
        """Name of the validation set that is being measured; None while training."""
        self.verdicts = VerdictCounts()
        """Counts of the verdicts on training rollouts."""
        self.measured: dict[str, float] = {}
        """Metrics of the training step that is being logged."""

    @property
    def step(self) -> int:
        """Number of training steps (generation batches) that are done."""
        return int(self.trainer.state.global_step) // self.config.optim.updates_per_batch

    def record(self, scored: Sequence[ScoredRollout], columns: Mapping[str, list[Any]]) -> None:
        """Write a batch of scored rollouts; the reward function calls this with each batch.

        Args:
            scored: Scored rollouts in the order of the batch, [batch_size].
            columns: Other columns of the batch, by name.
        """
        split = self.evaluating or "train"
        size = self.config.validation.num_samples if self.evaluating else self.config.rollout.group_size
        whole = size > 1 and len(scored) % size == 0  # with several processes a group may be divided
        advantages = batch_advantages(scored, size) if whole else [None] * len(scored)
        # Rollouts of a training batch belong to the step that they lead to.
        step = self.step + (0 if self.evaluating else 1)
        self.folder.rollouts(
            {"step": step, "split": split, **rollout_row(s, a, scored_truth(s, self.scorer))}
            for s, a in zip(scored, advantages, strict=True)
        )
        self.batches[split].extend(scored)
        if split == "train":
            self.verdicts.watch(s.verdict for s in scored if s.verdict)

    def summary(self, split: str) -> dict[str, float]:
        """Return the metrics of the batches of a split since the last call; {} without batches."""
        scored = self.batches.pop(split, [])
        if not scored:
            return {}
        truths = [scored_truth(s, self.scorer) for s in scored]
        if self.config.task == "genrm":
            return genrm_metrics(scored, [truth for truth in truths if truth])
        out = policy_metrics(scored, truths)
        if split == "train" and isinstance(self.scorer, PolicyScorer):
            out |= canary_metrics(self.scorer.judge)
        group_size = self.config.rollout.group_size
        if split == "train" and len(scored) % group_size == 0:
            out |= advantage_metrics(scored, group_size, truths) | flawed_rho_metrics(scored, group_size, truths)
        return out
