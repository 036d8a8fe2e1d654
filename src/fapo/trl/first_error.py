"""First-error credit for a GRPOTrainer of your own: each token has an advantage that depends on the first wrong step.

TRL has no hook for this. `GRPOTrainer._generate_and_score_completions` is replaced on the trainer (see
`fapo.trl.version`). TRL's loss takes an advantage for each token as well as one for each rollout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from accelerate.utils import gather_object

from fapo.errors import ConfigError
from fapo.judge.cascade import judges_in
from fapo.judge.genrm import GenRM
from fapo.rewards.eager_scorer import EagerJudge
from fapo.rewards.first_error import parts_of_all
from fapo.rewards.scorer import PolicyScorer, advantages_of_parts
from fapo.training.recorder import without_texts
from fapo.trl.reward import FlawedAwareReward
from fapo.trl.token_advantages import token_advantages
from fapo.trl.version import require_methods, warn_unless_checked
from fapo.types import ScoredRollout


def first_error_credit(trainer: Any, *, share_credit: bool = True) -> None:
    """Let a GRPOTrainer reward the steps before the first error, and punish the wrong step alone.

    The judge reads wrong rollouts, too, from now on. The formulas are those of `fapo.rewards.first_error`. Rewards and
    TRL's metrics of them stay those of `flawed_aware_reward`.

    Args:
        trainer: A `trl.GRPOTrainer` with a `flawed_aware_reward` as its only reward.
        share_credit: Whether the steps before an error share the credit of one step, so that more steps do not earn
            more; if not, each of them has all of it.

    Raises:
        ConfigError: If the trainer has other rewards or settings with which this cannot work; the message names them.
        EngineError: If the trainer lacks the private method of TRL's that is replaced.
    """
    require_methods(type(trainer), ("_generate_and_score_completions",), "first_error_credit")
    warn_unless_checked()
    reward, scorer = _checked(trainer)
    reward.scorer = scorer
    record, generate_and_score = reward.record, trainer._generate_and_score_completions
    taken: list[ScoredRollout] = []

    def recorded(scored: Sequence[ScoredRollout], columns: Mapping[str, list[Any]]) -> None:
        taken.extend(scored)
        if record:
            record(scored, columns)

    def credited(inputs: Any) -> Any:
        taken.clear()
        batch = generate_and_score(inputs)
        if trainer.model.training:
            everyone: list[ScoredRollout] = gather_object([without_texts(s) for s in taken])
            groups = [i // trainer.num_generations for i in range(len(everyone))]
            before, error = advantages_of_parts(everyone, groups)
            start = trainer.accelerator.process_index * len(taken)  # processes have equally many rollouts
            own = slice(start, start + len(taken))
            parts = parts_of_all(taken, scorer.steps, before[own], error[own], share_credit)
            batch["advantages"] = token_advantages(parts, batch, trainer.processing_class)
        return batch

    reward.record, trainer._generate_and_score_completions = recorded, credited


def _checked(trainer: Any) -> tuple[FlawedAwareReward, PolicyScorer]:
    """Return the reward of a trainer, and its scorer for all rollouts; raise ConfigError if they cannot be used."""
    reward, *others = trainer.reward_funcs
    if others or not isinstance(reward, FlawedAwareReward) or not isinstance(reward.scorer, PolicyScorer):
        raise ConfigError("first_error_credit: a flawed_aware_reward must be the only one of reward_funcs")
    judges = [*judges_in(reward.scorer.judge)]
    if any(isinstance(judge, EagerJudge) for judge in judges):
        raise ConfigError("first_error_credit: call it before judge_ahead")
    if any(isinstance(judge, GenRM) and judge.template.kind == "yes_no" for judge in judges):
        raise ConfigError(
            "first_error_credit: the template of the judge asks yes or no; use one that asks for the step of the "
            "error, such as locate"
        )
    if trainer.scale_rewards != "group":
        raise ConfigError(
            f"first_error_credit: scale_rewards is {trainer.scale_rewards!r}, must be 'group': the advantages are "
            "divided by the standard deviation of the group"
        )
    if getattr(trainer, "use_liger_kernel", False):
        raise ConfigError(
            "first_error_credit: use_liger_kernel has one advantage for all tokens of a rollout; turn it off"
        )
    return reward, replace(reward.scorer, judge_all=True)
