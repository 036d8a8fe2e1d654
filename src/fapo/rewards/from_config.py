"""Build the scorer that a config describes."""

from __future__ import annotations

from collections.abc import Iterable

from fapo.config.schema import Config, GenRMOutcomeReward, GenRMReward, ModelJudge, PolicyReward, StepRatioReward
from fapo.data.load import load_labelled
from fapo.data.miniature.oracle import known_ground_truth
from fapo.errors import ConfigError
from fapo.judge.canaries import Canaries
from fapo.judge.from_config import make_judge
from fapo.judge.template import load_template
from fapo.rewards.critique_scorer import CritiqueScorer, Scorer
from fapo.rewards.scorer import PolicyScorer
from fapo.types import GroundTruth, Judge, LabelledSolution, Scored


def make_scorer(config: Config, solutions: Iterable[LabelledSolution] = (), judge: Judge | None = None) -> Scorer:
    """Who scores rollouts; for a GenRM with the labels of the `solutions`, else with `judge` or the config's own."""
    if config.task == "genrm":
        assert config.genrm
        template = load_template(config.genrm.template)
        # a GenRM that imitates has no reward; in validation its critiques are scored by their labels
        genrm_reward = config.reward if isinstance(config.reward, GenRMReward) else GenRMOutcomeReward()
        labelled: dict[str, LabelledSolution] = {}
        for solution in solutions:
            same = labelled.setdefault(solution.problem.id, solution)
            if (same.steps, same.error_step, same.training_label) != (
                solution.steps,
                solution.error_step,
                solution.training_label,
            ):
                raise ConfigError(
                    f"data: two sets have a row {solution.problem.id!r}, with other steps or another label; "
                    "give the rows ids of their own, and with data.label_noise validate on other rows"
                )
        return CritiqueScorer(genrm_reward, template, labelled, config.rollout.max_tokens)
    if judge is None and config.judge:
        model_judge = config.judge if isinstance(config.judge, ModelJudge) else None
        needs_step = isinstance(config.reward, StepRatioReward)
        if needs_step and model_judge and load_template(model_judge.template).kind == "yes_no":
            raise ConfigError(
                f"judge.template: {model_judge.template!r} asks yes or no, but reward.kind step_ratio needs the step "
                "of the error; use a template that asks for the step, such as locate"
            )
        judge = make_judge(config.judge)
        if source := config.judge.canaries:
            known = load_labelled(source)
            judge = Canaries(judge, known, config.judge.canary_rate, config.judge.canary_min_f1, config.seed)
    reward = config.reward
    assert isinstance(reward, PolicyReward)
    judge_all = isinstance(reward, StepRatioReward) or bool(config.judge and config.judge.all)
    max_failure_rate = config.judge.max_failure_rate if isinstance(config.judge, ModelJudge) else 1.0
    return PolicyScorer(reward, judge, config.rollout.max_tokens, judge_all, max_failure_rate)


def truth(scored: Scored, scorer: Scorer) -> GroundTruth | None:
    """The oracle's word on a solution, where there is one; for a critique, the label of what it criticises."""
    if isinstance(scorer, CritiqueScorer):
        return GroundTruth(scorer.labelled[scored.rollout.problem.id].error_step)
    return known_ground_truth(scored.rollout)
