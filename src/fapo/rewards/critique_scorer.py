"""Score critiques: what a GenRM in training earns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fapo.config.schema import GenRMReward, GenRMStepReward
from fapo.errors import ConfigError
from fapo.judge.template import Template
from fapo.rewards import genrm
from fapo.rewards import policy as rewards
from fapo.rewards.scorer import PolicyScorer
from fapo.types import LabelledSolution, Reward, Rollout, Scored


@dataclass(frozen=True)
class CritiqueScorer:
    """Scores critiques of labelled solutions: the reward a GenRM is trained with."""

    config: GenRMReward
    """genrm_step or genrm_outcome, and overlong shaping."""
    template: Template
    """Decides how a critique is read."""
    labelled: dict[str, LabelledSolution]
    """Problem id of a rollout -> the solution it criticises."""
    max_tokens: int = 0
    """Length limit of a critique."""

    def __post_init__(self) -> None:
        if self.config.kind == "genrm_step" and self.template.kind == "yes_no":
            raise ConfigError(
                f"{self.template.name}: the template asks yes or no, but reward.kind genrm_step needs the step of the "
                'error; use kind = "genrm_outcome", or a template that asks for the step'
            )

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Scored]:
        """One result for each critique, in order; `correct` says whether its label (flawed or not) is right."""
        return [self.score(rollout) for rollout in rollouts]

    def score(self, rollout: Rollout) -> Scored:
        """Read one critique and reward it."""
        solution = self.labelled[rollout.problem.id]
        num_steps = len(solution.steps)
        verdict = replace(self.template.parse(rollout.response, num_steps), num_tokens=rollout.num_tokens)
        label = solution.training_label
        outcome = genrm.genrm_outcome_reward(verdict.flawed, label is not None)
        parts, value = {"outcome": outcome}, outcome
        if isinstance(self.config, GenRMStepReward):
            value = genrm.genrm_reward(verdict.flawed, verdict.error_step, label, num_steps)
            parts["process"] = value - outcome
        parts["overlong"] = rewards.overlong_penalty(rollout.num_tokens, self.max_tokens, self.config.overlong_buffer)
        return Scored(rollout, outcome > 0, verdict, Reward(value + parts["overlong"], parts))


Scorer = PolicyScorer | CritiqueScorer
