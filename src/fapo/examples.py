"""What a config trains and validates on, and who scores what is written: the same for every engine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from fapo.config import Config
from fapo.data import LabelledSolution, load_labelled, load_problems
from fapo.judge import build_prompt, load_template
from fapo.judges import make_judge
from fapo.measure import Fault
from fapo.miniature import sources as miniature
from fapo.scoring import CritiqueScorer, PolicyScorer, Scored, Scorer
from fapo.types import Judge, Message, Problem

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
        raise ValueError(f'data.validation: "{TRAIN}" names the training set; choose another name')
    load = _questions if config.task == "policy" else _solutions
    sources = {TRAIN: (config.data.train, config.data.limit)}
    sources |= {name: (source, config.validation.limit) for name, source in config.data.validation.items()}
    return {name: load(config, source, limit) for name, (source, limit) in sources.items()}


def _questions(config: Config, source: str, limit: int | None) -> list[Example]:
    prompt = "{{problem}}"
    if config.data.prompt:
        prompt = Path(config.data.prompt).read_text(encoding="utf-8").removesuffix("\n")
    found = miniature.problems(source, limit) if miniature.is_miniature(source) else load_problems(source, limit=limit)
    return [Example(p, [{"role": "user", "content": prompt.replace("{{problem}}", p.text)}]) for p in found]


def _solutions(config: Config, source: str, limit: int | None) -> list[Example]:
    template = load_template(config.judge.template if config.judge else "locate")
    found = miniature.labelled(source, limit) if miniature.is_miniature(source) else load_labelled(source, limit=limit)
    return [Example(s.problem, build_prompt(template, s.problem.text, s.problem.reference, s.steps), s) for s in found]


def make_scorer(config: Config, solutions: Iterable[LabelledSolution] = (), judge: Judge | None = None) -> Scorer:
    """Who scores rollouts; for a GenRM with the labels of the `solutions`, else with `judge` or the config's own."""
    if config.task == "genrm":
        template = load_template(config.judge.template if config.judge else "locate")
        labelled = {solution.problem.id: solution for solution in solutions}
        return CritiqueScorer(config.reward, template, labelled, config.rollout.max_tokens)
    if judge is None and config.judge:
        judge = make_judge(config.judge)
    judge_all = config.reward.kind == "step_ratio" or bool(config.judge and config.judge.all)
    max_failed = config.judge.max_failed_share if config.judge else 1.0
    return PolicyScorer(config.reward, judge, config.rollout.max_tokens, judge_all, max_failed)


def truth(scored: Scored, scorer: Scorer) -> Fault | None:
    """The oracle's word on a solution, where there is one; for a critique, the label of what it criticises."""
    if isinstance(scorer, CritiqueScorer):
        return scorer.labelled[scored.rollout.problem.id].error_step, None
    return miniature.known_truth(scored.rollout)
