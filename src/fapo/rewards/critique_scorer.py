"""Score critiques of a GenRM in training, by the labels of the solutions they are about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fapo.config.schema import GenRMReward, GenRMStepReward
from fapo.errors import ConfigError
from fapo.judge.genrm import verdict_in
from fapo.judge.template import Template
from fapo.rewards import genrm
from fapo.rewards import policy as rewards
from fapo.rewards.scorer import PolicyScorer
from fapo.types import Completion, LabelledSolution, Reward, Rollout, ScoredRollout


@dataclass(frozen=True)
class CritiqueScorer:
    """Score critiques of labelled solutions.

    The rollouts are critiques; the problem of each has the id of the solution that the critique is about.
    """

    config: GenRMReward
    """Kind of reward (genrm_step or genrm_outcome), and the overlong penalty."""
    template: Template
    """Prompt of the critiques; it determines how they are parsed."""
    labelled: dict[str, LabelledSolution]
    """Problem id -> the solution that the critique is about."""
    max_tokens: int = 0
    """Length limit of a critique in tokens, for the overlong penalty."""

    def __post_init__(self) -> None:
        if self.config.kind == "genrm_step" and self.template.kind == "yes_no":
            raise ConfigError(
                f"{self.template.name}: the template asks yes or no, but reward.kind genrm_step needs the step of the "
                'error; use kind = "genrm_outcome", or a template that asks for the step'
            )

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[ScoredRollout]:
        """Return one result for each critique, in order; `correct` says whether its "flawed" agrees with the label."""
        return [self.score(rollout) for rollout in rollouts]

    def score(self, rollout: Rollout) -> ScoredRollout:
        """Parse one critique and return it with its reward."""
        solution = self.labelled[rollout.problem.id]
        num_steps = len(solution.steps)
        critique = Completion(rollout.response, rollout.num_tokens, truncated=rollout.truncated)
        verdict = verdict_in(critique, self.template, [False] * num_steps)
        label = solution.training_label
        outcome = genrm.genrm_outcome_reward(verdict.flawed, label is not None)
        parts, value = {"outcome": outcome}, outcome
        if isinstance(self.config, GenRMStepReward):
            value = genrm.genrm_reward(verdict.flawed, verdict.error_step, label, num_steps)
            parts["process"] = value - outcome
        parts["overlong"] = rewards.overlong_penalty(rollout.num_tokens, self.max_tokens, self.config.overlong_buffer)
        return ScoredRollout(rollout, outcome > 0, verdict, Reward(value + parts["overlong"], parts))


Scorer = PolicyScorer | CritiqueScorer
"""Scorer of any run: of solutions or of critiques."""
