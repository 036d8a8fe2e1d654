"""Build the scorer that a config describes, and wrap its judge for an engine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from fapo.config.schema import (
    Config,
    CritiqueJudge,
    FallibleJudge,
    GenRMOutcomeReward,
    GenRMReward,
    PolicyReward,
)
from fapo.data.miniature.oracle import known_ground_truth
from fapo.errors import ConfigError
from fapo.judge.coalesce import BatchingJudge
from fapo.judge.deduplicate import DeduplicatingJudge
from fapo.judge.from_config import JudgeModel, make_judge, step_rule
from fapo.judge.template import load_template
from fapo.rewards.checkers import make_checker
from fapo.rewards.critique_scorer import CritiqueScorer, Scorer
from fapo.rewards.scorer import PolicyScorer
from fapo.types import GroundTruth, Judge, LabelledSolution, ScoredRollout


def make_scorer(
    config: Config,
    solutions: Iterable[LabelledSolution] = (),
    judge: Judge | None = None,
    judge_model: JudgeModel | None = None,
) -> Scorer:
    """Return the scorer that a config describes.

    Args:
        config: Settings of the run.
        solutions: Labelled solutions of the data; needed for the task "genrm" only.
        judge: Judge to use in place of the one in the config; for the task "policy" only.
        judge_model: Model of the judge of the config, if it is that of a trainer (kind "adapter").

    Returns:
        A `CritiqueScorer` for the task "genrm", else a `PolicyScorer`.

    Raises:
        ConfigError: If the template or the model of the judge, or the answer checker, cannot be loaded, the template
            does not ask for the step that the reward needs, or two solutions with the same id differ.
        DataError: If the cache or the canaries of the judge cannot be used.
    """
    if config.task == "genrm":
        assert config.genrm
        template = load_template(config.genrm.template)
        # a GenRM trained with method "sft" has no reward; its critiques in validation are scored by their labels
        genrm_reward = config.reward if isinstance(config.reward, GenRMReward) else GenRMOutcomeReward()
        return CritiqueScorer(genrm_reward, template, _by_id(solutions), config.rollout.max_tokens)
    reward = config.reward
    assert isinstance(reward, PolicyReward)
    check_scorer(config)
    if judge is None and config.judge:
        judge = make_judge(config.judge, seed=config.seed, model=judge_model)
    max_failure_rate = config.judge.max_failure_rate if isinstance(config.judge, FallibleJudge) else 1.0
    steps = step_rule(config.judge) if config.judge else "paragraphs"
    check = make_checker(reward.checker)
    return PolicyScorer(reward, judge, config.rollout.max_tokens, config.judges_all, steps, max_failure_rate, check)


def check_scorer(config: Config) -> None:
    """Raise ConfigError for a template or checker that cannot be loaded, or a yes/no prompt where steps are needed."""
    if config.task == "genrm":
        make_scorer(config)  # the scorer of critiques loads no model
        return
    if isinstance(config.reward, PolicyReward):
        make_checker(config.reward.checker)
    if config.judge and config.audit and config.audit.switches and config.audit.second:
        first, second = step_rule(config.judge), step_rule(config.audit.second)
        if first != second:
            raise ConfigError(
                f"judge splits solutions into {first} and judge.audit.judge, which may take its place, into {second}; "
                "set `steps` of one of them"
            )
    for key, judge in config.rewarding_judges:
        if not isinstance(judge, CritiqueJudge):
            continue
        template = load_template(judge.template)
        if template.kind == "yes_no" and config.reward and config.reward.needs_steps:
            raise ConfigError(
                f"{key}.template: {judge.template!r} asks yes or no, but reward.kind {config.reward.kind} needs the "
                "step of the error; use a template that asks for the step, such as locate"
            )


def wrap_judge(scorer: PolicyScorer, *, batch: bool) -> PolicyScorer:
    """Wrap the judge of a scorer that many calls share.

    Args:
        scorer: Scorer with a judge.
        batch: Whether to join the calls that arrive while the judge is busy.

    Returns:
        A copy of the scorer, which judges equal rollouts of different calls once.
    """
    assert scorer.judge, "only the judge of a scorer can be wrapped"
    judge = BatchingJudge(scorer.judge) if batch else scorer.judge
    return replace(scorer, judge=DeduplicatingJudge(judge))


def scored_truth(scored: ScoredRollout, scorer: Scorer) -> GroundTruth | None:
    """Return what is known about a scored rollout.

    Args:
        scored: Rollout that the scorer has scored.
        scorer: Scorer; it has the labels of the solutions that critiques are about.

    Returns:
        For a solution what the oracle knows, None where there is no oracle; for a critique the label of the solution.
    """
    if isinstance(scorer, CritiqueScorer):
        solution = scorer.labelled[scored.rollout.problem.id]
        return GroundTruth(solution.error_step, answer_correct=solution.correct)
    return known_ground_truth(scored.rollout)


def _by_id(solutions: Iterable[LabelledSolution]) -> dict[str, LabelledSolution]:
    """Return the solutions by the id of their problem. Raise ConfigError if two with the same id differ."""
    by_id: dict[str, LabelledSolution] = {}
    for new in solutions:
        old = by_id.setdefault(new.problem.id, new)
        if (old.steps, old.error_step, old.training_label) != (new.steps, new.error_step, new.training_label):
            raise ConfigError(
                f"data: two sets have a row {new.problem.id!r}, with other steps or another label; "
                "give the rows distinct ids, and with data.label_noise validate on other rows"
            )
    return by_id
