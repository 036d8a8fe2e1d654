"""verl's replay buffer, which also writes what it hands out to the run folder.

    trainer.v1.sampler.custom_sampler.path=pkg://fapo.verl.recorder
    trainer.v1.sampler.custom_sampler.name=RecordingBuffer
    +trainer.v1.sampler.sampler_kwargs.config=/path/of/the/run/folder/config.json

It stands where all rollouts of a step or of a validation pass by in the trainer's process, scored, before their
advantages are computed; what it returns as metrics goes to verl's loggers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import transfer_queue
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from fapo.config.reader import read_config
from fapo.config.schema import JudgedReward, ModelJudge
from fapo.data.miniature.oracle import known_ground_truth
from fapo.judge.canaries import CanaryWindow
from fapo.judge.circuit_breaker import CircuitBreaker
from fapo.rewards.scorer import unscored_error
from fapo.training.datasets import TRAIN
from fapo.training.rollout_row import rollout_row
from fapo.training.run_folder import RunFolder
from fapo.training.run_lock import take
from fapo.training.step_metrics import (
    advantage_metrics,
    flawed_rho_metrics,
    genrm_metrics,
    of_validation,
    policy_metrics,
)
from fapo.types import GroundTruth
from fapo.verl.advantages import by_group
from fapo.verl.payload import Parcel, unwrap
from fapo.verl.timing import Pending, exposed_seconds


class RecordingBuffer(ReplayBuffer):
    """Records rollouts and metrics as the TRL engine does; stops the run where the config says so."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.config = read_config(self.sampler_kwargs["config"])
        self.folder = RunFolder(self.config, resume=True)
        self.folder.checkpoints.mkdir(exist_ok=True)
        take(self.folder.checkpoints)  # the folder itself is taken by whoever has started verl
        self.begun = False
        self.pending: Pending | None = None
        self.canaries = CanaryWindow(self.config.judge.canary_min_f1 if self.config.judge else 0.0)
        judge = self.config.judge
        self.breaker = CircuitBreaker(judge.max_failure_rate if isinstance(judge, ModelJudge) else 1.0)

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[Any, dict[str, Any]]:
        """A batch of verl's and its metrics, ours among them."""
        batch, metrics = super().sample(global_steps, partition_id, batch_size)
        if not self.begun:  # what a resumed run will do again
            self.folder.rewind(global_steps - 1)
            self.begun = True
        if self.trainer:
            self.trainer.logger.logger.setdefault("fapo", self)
        fields = ["uid", "extra_fields", "rm_scores", "metrics"]
        data = transfer_queue.kv_batch_get(keys=batch.keys, partition_id=partition_id, select_fields=fields)
        rewards = [float(scores.sum()) for scores in data["rm_scores"]]
        texts = [extra["reward_extra_info"]["fapo"] for extra in data.pop("extra_fields").tolist()]
        lengths = [tag["response_len"] for tag in batch.tags]
        rows = zip(texts, rewards, lengths, strict=True)
        parcels = [unwrap(text, reward, length, self.config.rollout.max_tokens) for text, reward, length in rows]
        groups = data.pop("uid").tolist()
        if partition_id == "train":
            own = self._record(global_steps, TRAIN, parcels, groups)
            exposed, timing = exposed_seconds(data.pop("metrics").tolist()), getattr(self.trainer, "timing_raw", {})
            self.pending = Pending(global_steps, own, exposed, timing)
            metrics |= own
        else:
            self.flush()
            found = self._validation(global_steps, parcels, groups)
            if self.trainer:
                logged = {f"val-aux/{key}": value for key, value in found.items() if math.isfinite(value)}
                self.trainer.logger.log(data=logged, step=global_steps)
        if not self.trainer:
            self.flush()
        try:
            self._check(parcels)
        except Exception:  # the run ends here
            self.flush()
            raise
        return batch, metrics

    @property
    def trainer(self) -> Any:
        """Verl's trainer, which gave us a method of its own to ask for more prompts; None in other hands."""
        return getattr(self.refill_fn, "__self__", None)

    def log(self, data: Mapping[str, Any], step: int) -> None:
        """Called as one of verl's loggers, when a step is over."""
        self.flush()

    def flush(self) -> None:
        """Write the metrics of the last step, of which the times are known only when it is over."""
        if self.pending:
            row, self.pending = self.pending, None
            self.folder.metrics(row.step, TRAIN, row.metrics | row.times())

    def _validation(self, step: int, parcels: Sequence[Parcel], groups: Sequence[str]) -> dict[str, float]:
        out: dict[str, float] = {}
        for name in dict.fromkeys(parcel.split for parcel in parcels):
            own = [i for i, parcel in enumerate(parcels) if parcel.split == name]
            found = self._record(step, name, [parcels[i] for i in own], [groups[i] for i in own])
            out |= of_validation(name, found)
        self.folder.metrics(step, "validation", out)
        return out

    def _record(self, step: int, split: str, parcels: Sequence[Parcel], groups: Sequence[str]) -> dict[str, float]:
        """Write the rollouts of one set, those of a group together; returns their metrics."""
        order = sorted(range(len(groups)), key=lambda i: groups[i])
        parcels, groups = [parcels[i] for i in order], [groups[i] for i in order]
        scored = [parcel.scored for parcel in parcels]
        rewards = np.array([np.nan if s.reward.value is None else s.reward.value for s in scored])
        advantages: list[float | None] = [*by_group(rewards, groups)]
        if self.config.task == "genrm":
            truths: list[GroundTruth | None] = [GroundTruth(parcel.label) for parcel in parcels]
        else:
            truths = [known_ground_truth(s.rollout) for s in scored]
        if split != TRAIN and self.config.validation.num_samples == 1:
            advantages = [None] * len(scored)
        self.folder.rollouts(
            {"step": step, "split": split, **rollout_row(*row)} for row in zip(scored, advantages, truths, strict=True)
        )
        if self.config.task == "genrm":
            return genrm_metrics(scored, [parcel.label for parcel in parcels])
        out = policy_metrics(scored, truths)
        self.canaries.add(result for parcel in parcels for result in parcel.canaries)
        if split == TRAIN:
            out |= self.canaries.metrics()
            size, sizes = self.config.rollout.group_size, Counter(groups)
            whole = [i for i, name in enumerate(groups) if sizes[name] == size]  # verl trains on what is left of others
            if whole:
                of_groups = [scored[i] for i in whole], size, [truths[i] for i in whole]
                out |= advantage_metrics(*of_groups) | flawed_rho_metrics(*of_groups)
        return out

    def _check(self, parcels: Sequence[Parcel]) -> None:
        """Raise UnscoredError or JudgeDownError as configured; raised in a reward worker they would be lost."""
        if self.config.task != "policy":
            return
        reward = self.config.reward
        stops = isinstance(reward, JudgedReward) and reward.on_unscored == "raise"
        for scored in (parcel.scored for parcel in parcels):
            if scored.reward.value is None and stops:
                raise unscored_error(scored.rollout, scored.verdict)
        self.canaries.check()
        self.breaker.record_verdicts(parcel.scored.verdict for parcel in parcels if parcel.scored.verdict)
