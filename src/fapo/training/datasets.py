"""What a config trains and validates on, and who scores what is written: the same for every engine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from fapo.canaries import Canaries
from fapo.config import Config, GenRMOutcomeReward, GenRMReward, ModelJudge, PolicyReward, StepRatioReward
from fapo.critic.noise import with_label_noise
from fapo.data import LabelledSolution, load_prompt, question_messages
from fapo.errors import ConfigError
from fapo.judge import build_prompt, load_template
from fapo.judges import make_judge
from fapo.load import load_labelled, load_problems
from fapo.miniature.sources import known_truth
from fapo.scoring import CritiqueScorer, PolicyScorer, Scored, Scorer
from fapo.types import GroundTruth, Judge, Message, Problem

TRAIN = "train"
"""Name of the training set among the sets."""


@dataclass(frozen=True)
class Example:
    """One prompt of a data set."""

    problem: Problem
    """The question; for a GenRM the one that the solution answers."""
    prompt: list[Message]
    """What the model in training is given."""
    solution: LabelledSolution | None = None
    """For a GenRM: the solution it is to criticise."""


Sets = dict[str, list[Example]]
"""Name of a set -> its examples; the first one is TRAIN, the others are for validation."""


def load_sets(config: Config) -> Sets:
    """All that a config trains and validates on."""
    if TRAIN in config.data.validation:
        raise ConfigError(f'data.validation: "{TRAIN}" names the training set; choose another name')
    load = _questions if config.task == "policy" else _solutions
    sources = {TRAIN: (config.data.train, config.data.limit)}
    sources |= {name: (source, config.validation.limit) for name, source in config.data.validation.items()}
    sets = {name: load(config, source, limit) for name, (source, limit) in sources.items()}
    if config.data.label_noise:
        noisy = with_label_noise([e.solution for e in sets[TRAIN] if e.solution], config.data.label_noise, config.seed)
        sets[TRAIN] = [replace(e, solution=solution) for e, solution in zip(sets[TRAIN], noisy, strict=True)]
    return sets


def _questions(config: Config, source: str, limit: int | None) -> list[Example]:
    prompt = load_prompt(config.data.prompt)
    found = load_problems(source, limit=limit)
    return [Example(problem, question_messages(prompt, problem)) for problem in found]


def _solutions(config: Config, source: str, limit: int | None) -> list[Example]:
    assert config.genrm
    template = load_template(config.genrm.template)
    found = load_labelled(source, limit=limit)
    return [Example(s.problem, build_prompt(template, s.problem.text, s.problem.reference, s.steps), s) for s in found]


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
    return known_truth(scored.rollout)
