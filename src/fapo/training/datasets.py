"""Training and validation sets of a config, the same for every engine."""

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
"""Name of the training set."""


@dataclass(frozen=True)
class Example:
    """One row of a data set."""

    problem: Problem
    """Problem; for a GenRM the problem of the solution."""
    prompt: list[Message]
    """Prompt of the trained model."""
    solution: LabelledSolution | None = None
    """Solution that a GenRM judges; None for a policy."""


Sets = dict[str, list[Example]]
"""Examples by the name of the set; the first set is TRAIN, the others are validation sets."""


def load_sets(config: Config) -> Sets:
    """Load the training set and the validation sets of a config.

    Args:
        config: Config.

    Returns:
        Examples by the name of the set.

    Raises:
        ConfigError: A validation set has the name of the training set, or a prompt or template cannot be used.
        DataError: A row of the data cannot be read.
    """
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
    """Return questions as the examples of a policy."""
    prompt = load_prompt(config.data.prompt)
    found = load_problems(source, limit=limit)
    return [Example(problem, question_messages(prompt, problem)) for problem in found]


def _solutions(config: Config, source: str, limit: int | None) -> list[Example]:
    """Return labelled solutions as the examples of a GenRM."""
    assert config.genrm
    template = load_template(config.genrm.template)
    found = load_labelled(source, limit=limit, steps=template.steps)
    return [Example(s.problem, build_prompt(template, s.problem.text, s.problem.reference, s.steps), s) for s in found]
