"""What a config trains and validates on, and who scores what is written: the same for every engine."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fapo.config.schema import Config
from fapo.data.load import load_labelled, load_problems
from fapo.data.problems import load_prompt, question_messages
from fapo.errors import ConfigError
from fapo.judge.template import build_prompt, load_template
from fapo.training.critic_data.label_noise import with_label_noise
from fapo.types import LabelledSolution, Message, Problem

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
