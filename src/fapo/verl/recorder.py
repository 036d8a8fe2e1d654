"""verl's replay buffer, extended: it writes the rollouts that it hands out, and their metrics, to the run folder.

    trainer.v1.sampler.custom_sampler.path=pkg://fapo.verl.recorder
    trainer.v1.sampler.custom_sampler.name=RecordingBuffer      (AsyncRecordingBuffer with trainer_mode=colocate_async)
    +trainer.v1.sampler.sampler_kwargs.config=/path/of/the/run/folder/config.json

All scored rollouts of a step or a validation pass through the replay buffer in the trainer's process, before their
advantages are computed. verl logs the metrics that it returns.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import transfer_queue
from tensordict import TensorDict
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync

from fapo.config.reader import read_config
from fapo.config.schema import FirstErrorReward, GroupReward
from fapo.data.miniature.oracle import known_ground_truth
from fapo.inference.usage import Usage
from fapo.judge.from_config import step_rule
from fapo.judge.verdict_counts import VerdictCounts
from fapo.rewards.first_error import Parts, parts_of_all, token_values
from fapo.rewards.from_config import make_scorer
from fapo.rewards.scorer import PolicyScorer, advantages_of_parts, batch_advantages
from fapo.training.datasets import TRAIN
from fapo.training.judge_audit import JudgeAudit, audited_verdicts, correct_rewards, warn_of_switch
from fapo.training.rollout_row import rollout_row
from fapo.training.run_folder import RunFolder, with_cache
from fapo.training.run_lock import lock_folder
from fapo.training.step_metrics import (
    advantage_metrics,
    flawed_rho_metrics,
    genrm_metrics,
    policy_metrics,
    usage_metrics,
    validation_metrics,
)
from fapo.training.stop_rules import StopRules, without_stops
from fapo.types import GroundTruth
from fapo.verl import advantages as _estimator  # noqa: F401, it registers the estimator "fapo"
from fapo.verl.payload import Payload, decode
from fapo.verl.timing import PendingMetrics, exposed_seconds


class _Recording(ReplayBuffer):
    """Replay buffer that records rollouts and metrics as the TRL engine does, and stops the run as the config says."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.config = read_config(self.sampler_kwargs["config"])
        self.folder = RunFolder(self.config, resume=True)
        self.folder.checkpoints.mkdir(exist_ok=True)
        lock_folder(self.folder.checkpoints)  # the program that has started verl holds the lock of the folder itself
        self.started = False
        self.pending: PendingMetrics | None = None
        self.verdicts = VerdictCounts()
        self.stop_rules = StopRules(self.config)  # an exception in a reward worker would be lost
        audit = with_cache(self.config).audit
        self.audit = JudgeAudit(audit, self.config.seed) if audit else None
        self.second: PolicyScorer | None = None
        """Scorer with the second judge, once that has taken the place of the first one."""
        self.folder.switched.unlink(missing_ok=True)

    def sample(self, global_steps: int, partition_id: str, batch_size: int) -> tuple[Any, dict[str, Any]]:
        """Return a batch of verl and its metrics, after it was recorded.

        Args:
            global_steps: Number of the step.
            partition_id: "train", or the name of the partition of validation rollouts.
            batch_size: Number of prompts.

        Returns:
            The batch, and metrics for verl's loggers.

        Raises:
            UnscoredError: If there is no verdict on a rollout, and `reward.on_unscored` is "raise".
            JudgeDownError: If the judge fails for too many rollouts, or is too bad on canaries or in audits.
        """
        batch, metrics = super().sample(global_steps, partition_id, batch_size)
        if not self.started:  # rows that a resumed run will write again
            self.folder.rewind(global_steps - 1)
            self.stop_rules.audit.add(audited_verdicts(self.folder.earlier_audits()))
            self.switch_if_low()
            self.started = True
        if self.trainer:
            self.trainer.logger.logger.setdefault("fapo", self)
        has_parts = isinstance(self.config.reward, FirstErrorReward) and partition_id == TRAIN
        fields = ["uid", "extra_fields", "rm_scores", "metrics", *(["responses"] if has_parts else [])]
        data = transfer_queue.kv_batch_get(keys=batch.keys, partition_id=partition_id, select_fields=fields)
        rewards = [float(scores.sum()) for scores in data["rm_scores"]]
        texts = [extra["reward_extra_info"]["fapo"] for extra in data.pop("extra_fields").tolist()]
        lengths = [tag["response_len"] for tag in batch.tags]
        rows = zip(texts, rewards, lengths, strict=True)
        payloads = [decode(*row, self.config.rollout.max_tokens) for row in rows]
        groups = data.pop("uid").tolist()
        if partition_id != TRAIN:
            self.flush()  # its audit decides who judges the validation
        payloads = self.judged_again(payloads)
        if partition_id == TRAIN:
            payloads, corrected_for = self.corrected(payloads)
            parts = self.parts(payloads, groups) if has_parts else []
            advantages = [part.error for part in parts] if has_parts else self.advantages(payloads, groups)
            measured = self.record(global_steps, TRAIN, payloads, groups, advantages) | corrected_for
            compares_groups = isinstance(self.config.reward, GroupReward)
            if compares_groups or corrected_for or self.second:
                values = [math.nan if (value := p.scored.reward.value) is None else value for p in payloads]
                if has_parts:
                    scores = scores_of_tokens(data["responses"], parts, self.trainer.tokenizer)
                else:
                    scores = scores_of_rollouts(data["rm_scores"], advantages if compares_groups else values)
                transfer_queue.kv_batch_put(keys=batch.keys, partition_id=partition_id, fields=scores)
            self.verdicts.watch(payload.scored.verdict for payload in payloads if payload.scored.verdict)
            clocks, timing = data.pop("metrics").tolist(), getattr(self.trainer, "timing_raw", {})
            exposed = None if isinstance(self, ReplayBufferAsync) else exposed_seconds(clocks)
            self.pending = PendingMetrics(global_steps, measured, exposed, timing)
            metrics |= measured
        else:
            measured = self.record_validation(global_steps, payloads, groups)
            if self.trainer:
                logged = {f"val-aux/{key}": value for key, value in measured.items() if math.isfinite(value)}
                self.trainer.logger.log(data=logged, step=global_steps)
        if not self.trainer:
            self.flush()
        try:
            self.check(payloads)
        except Exception:  # the run ends here
            self.flush()
            raise
        return batch, metrics

    @property
    def trainer(self) -> Any:
        """Trainer of verl, found through its bound method `refill_fn`; None outside of a trainer."""
        return getattr(self.refill_fn, "__self__", None)

    def log(self, data: Mapping[str, Any], step: int) -> None:
        """Write the metrics of a step that is over; verl calls this as one of its loggers.

        Args:
            data: Not used.
            step: Not used.
        """
        self.flush()

    def flush(self) -> None:
        """Write the metrics of the last step, with its times, which are known only when it is over."""
        if self.pending:
            row, self.pending = self.pending, None
            used: dict[str, float] = {}
            if self.audit and not self.second:
                audited, rows = self.audit.finish()
                self.folder.audits(rows)
                self.stop_rules.audit.add(audited)
                used = usage_metrics(self.audit.take_usage(), self.audit.config.second, "audit")
            measured = row.metrics | self.stop_rules.audit_metrics() | used | row.seconds()
            self.folder.metrics(row.step, TRAIN, measured)
            self.switch_if_low()

    def record_validation(self, step: int, payloads: Sequence[Payload], groups: Sequence[str]) -> dict[str, float]:
        """Write the rollouts and metrics of a validation.

        Args:
            step: Number of the step.
            payloads: Scored rollouts of all validation sets [num_rollouts].
            groups: Name of the group of each rollout [num_rollouts].

        Returns:
            Metrics of each set under its name: NAME/accuracy and so on.
        """
        out: dict[str, float] = {}
        for name in dict.fromkeys(payload.split for payload in payloads):
            rows = [i for i, payload in enumerate(payloads) if payload.split == name]
            own, own_groups = [payloads[i] for i in rows], [groups[i] for i in rows]
            alone = self.config.validation.num_samples == 1
            advantages = [None] * len(rows) if alone else self.advantages(own, own_groups)
            measured = self.record(step, name, own, own_groups, advantages)
            out |= validation_metrics(name, measured)
        self.folder.metrics(step, "validation", out)
        return out

    def corrected(self, payloads: Sequence[Payload]) -> tuple[list[Payload], dict[str, float]]:
        """Return rollouts of the training with the rewards of `correct_rewards`, and its metrics."""
        scored, corrected_for = correct_rewards([p.scored for p in payloads], self.config, self.stop_rules.audit)
        return [replace(p, scored=s) for p, s in zip(payloads, scored, strict=True)], corrected_for

    def switch_if_low(self) -> None:
        """Let the second judge judge from now on, if the audited verdicts say so."""
        if self.audit and self.stop_rules.switch_if_low():
            scorer = make_scorer(without_stops(self.config), judge=self.audit.judge)
            assert isinstance(scorer, PolicyScorer)
            self.second = scorer
            self.folder.switched.touch()
            warn_of_switch(self.stop_rules.audit)

    def judged_again(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Return rollouts with the verdicts and rewards of the second judge, if it has taken the place of the first.

        The reward workers are other processes and know only the first judge. They do not ask it any more about rollouts
        of the training.
        """
        if not (self.audit and self.second):
            return list(payloads)
        scored = self.audit.score([p.scored for p in payloads], self.second)
        used = [self.audit.take_usage(), *[Usage()] * len(payloads)]
        return [replace(p, scored=s, usage=u, canaries=()) for p, s, u in zip(payloads, scored, used, strict=False)]

    def advantages(self, payloads: Sequence[Payload], groups: Sequence[str]) -> list[float]:
        """Return the advantages of rollouts [num_rollouts], as `batch_advantages` does for the reward of the run."""
        return [*batch_advantages([payload.scored for payload in payloads], groups, self.config.reward)]

    def parts(self, payloads: Sequence[Payload], groups: Sequence[str]) -> list[Parts]:
        """Return the parts of rollouts [num_rollouts], with their advantages, for the reward "first_error"."""
        scored = [payload.scored for payload in payloads]
        assert self.config.judge and isinstance(self.config.reward, FirstErrorReward)
        advantages = advantages_of_parts(scored, groups)
        return parts_of_all(scored, step_rule(self.config.judge), *advantages, self.config.reward.share_credit)

    def record(
        self,
        step: int,
        split: str,
        payloads: Sequence[Payload],
        groups: Sequence[str],
        advantages: Sequence[float | None],
    ) -> dict[str, float]:
        """Write the rollouts of one set, those of a group next to each other.

        Args:
            step: Number of the step.
            split: "train", or the name of a validation set.
            payloads: Scored rollouts [num_rollouts].
            groups: Name of the group of each rollout [num_rollouts].
            advantages: Advantage of each rollout [num_rollouts]; None where a rollout is alone in its group.

        Returns:
            Metrics of the rollouts.
        """
        order = sorted(range(len(groups)), key=lambda i: groups[i])
        payloads, groups = [payloads[i] for i in order], [groups[i] for i in order]
        scored, advantages = [payload.scored for payload in payloads], [advantages[i] for i in order]
        if self.config.task == "genrm":
            truths: list[GroundTruth | None] = [payload.truth for payload in payloads]
        else:
            truths = [known_ground_truth(s.rollout) for s in scored]
        self.folder.rollouts(
            {"step": step, "split": split, **rollout_row(*row)} for row in zip(scored, advantages, truths, strict=True)
        )
        if self.config.task == "genrm":
            return genrm_metrics(scored, [truth for truth in truths if truth])
        usage = sum((payload.usage for payload in payloads), Usage())
        out = policy_metrics(scored, truths) | usage_metrics(usage, self.stop_rules.judge)
        self.stop_rules.add_canaries(result for payload in payloads for result in payload.canaries)
        if split == TRAIN:
            out |= self.stop_rules.canary_metrics()
            if self.audit and not self.second:
                self.audit.begin(step, scored)
            size, sizes = self.config.rollout.group_size, Counter(groups)
            complete = [i for i, name in enumerate(groups) if sizes[name] == size]  # verl may lose rollouts of others
            if complete:
                known, of_groups = [truths[i] for i in complete], [scored[i] for i in complete]
                out |= advantage_metrics(of_groups, [advantages[i] for i in complete], known)
                out |= flawed_rho_metrics(of_groups, size, known)
        return out

    def check(self, payloads: Sequence[Payload]) -> None:
        """Stop the run as the config says. Raises as `StopRules.check` does for these rollouts."""
        self.stop_rules.check([payload.scored for payload in payloads])


def scores_of_rollouts(rm_scores: Iterable[torch.Tensor], values: Iterable[float]) -> TensorDict:
    """Return a number for each rollout as verl's field `rm_scores`, which has it at the last token.

    Args:
        rm_scores: The field as it is [num_rollouts], a tensor [num_tokens] for each rollout.
        values: Number of each rollout [num_rollouts].

    Returns:
        Table with the one field.
    """
    rows = [scores.new_zeros(len(scores)) for scores in rm_scores]
    for row, value in zip(rows, values, strict=True):
        row[-1] = value
    return TensorDict({"rm_scores": torch.nested.as_nested_tensor(rows, layout=torch.jagged)}, batch_size=len(rows))


def scores_of_tokens(responses: Iterable[torch.Tensor], parts: Iterable[Parts], tokenizer: Any) -> TensorDict:
    """Return the advantages of the tokens of each rollout as verl's field `rm_scores`.

    Args:
        responses: Ids of the tokens of each rollout [num_rollouts], a tensor [num_tokens] for each.
        parts: Parts of each rollout [num_rollouts].
        tokenizer: Tokenizer of the policy.

    Returns:
        Table with the one field.
    """
    decode = functools.partial(tokenizer.decode, skip_special_tokens=True)
    rows = [
        torch.tensor(token_values(part, tokens.tolist(), decode), dtype=torch.float32)
        for tokens, part in zip(responses, parts, strict=True)
    ]
    return TensorDict({"rm_scores": torch.nested.as_nested_tensor(rows, layout=torch.jagged)}, batch_size=len(rows))


class RecordingBuffer(_Recording):
    """Recording buffer for verl's synchronous trainer."""


class AsyncRecordingBuffer(_Recording, ReplayBufferAsync):
    """Recording buffer for verl's trainer that generates the next batch while it updates.

    A rollout is recorded at the step that trains on it, whichever step began it.
    """
