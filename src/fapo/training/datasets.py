"""Training and validation sets of a config, the same for every engine."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass, replace

from fapo.config.schema import Config
from fapo.data.load import load_labelled, load_problems
from fapo.data.problems import load_prompt, question_messages
from fapo.errors import ConfigError
from fapo.inference.models import loading, model_folder
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
    """Load the training set and the validation sets of a config; training rows with too long prompts are left out.

    Args:
        config: Config.

    Returns:
        Examples by the name of the set.

    Raises:
        ConfigError: A validation set has the name of the training set or none for a file, a prompt or template cannot
            be used, a prompt of a validation set, or each one of the training set, is longer than
            `data.max_prompt_tokens`, or the training set is too small for one step.
        DataError: A row of the data cannot be read.
    """
    if TRAIN in config.data.validation:
        raise ConfigError(f'data.validation: "{TRAIN}" names the training set; choose another name')
    for name in config.data.validation:
        if not re.fullmatch(r"[\w-][\w.-]*", name):  # verl's data are files of these names
            raise ConfigError(
                f"data.validation: name a set by letters, digits and . _ - (it names a file), not {name!r}"
            )
    load = _questions if config.task == "policy" else _solutions
    sources = {TRAIN: (config.data.train, config.data.limit)}
    sources |= {name: (source, config.validation.limit) for name, source in config.data.validation.items()}
    sets = {name: load(config, source, limit) for name, (source, limit) in sources.items()}
    if config.data.label_noise:
        noisy = with_label_noise([e.solution for e in sets[TRAIN] if e.solution], config.data.label_noise, config.seed)
        sets[TRAIN] = [replace(e, solution=solution) for e, solution in zip(sets[TRAIN], noisy, strict=True)]
    sets = _without_long_prompts(config, sets)
    if why := too_few_rows(config, len(sets[TRAIN])):
        raise ConfigError(f"data.train: {why}")
    return sets


def too_few_rows(config: Config, num_rows: int) -> str:
    """Return why a training set is too small for one step of reinforcement learning, or "" if it is not.

    With such a set TRL would end without a step, and verl with an assertion.
    """
    needed = config.rollout.num_prompts
    if config.method != "rl" or num_rows >= needed:
        return ""
    found = f"{num_rows} rows are fewer than rollout.num_prompts = {needed}"
    return f"{found}, so there is no step; lower it, or give more rows"


def _without_long_prompts(config: Config, sets: Sets) -> Sets:
    """Return the sets without training rows beyond `data.max_prompt_tokens`; raise ConfigError for validation rows."""
    from fapo.inference.transformers_model import prompts_over  # here, because it imports torch

    limit, path = config.data.max_prompt_tokens, model_folder(config.model.path)
    key, kept = f"data.max_prompt_tokens = {limit}", dict(sets)
    for name, examples in sets.items():
        with loading("model.path", path):
            long = prompts_over(limit, path, [example.prompt for example in examples])
        if not any(long):
            continue
        found = f"{sum(long)} of {len(long)} prompts are longer than {key}"
        if name != TRAIN:
            first = examples[long.index(True)].problem.id
            raise ConfigError(
                f"data.validation.{name}: {found}, first that of row {first!r}; raise the limit, or remove these rows"
            )
        if all(long):
            raise ConfigError(f"data.train: {found}; raise the limit")
        logging.getLogger("fapo").warning("data.train: %s; these rows are left out", found)
        kept[TRAIN] = [example for example, is_too_long in zip(examples, long, strict=True) if not is_too_long]
    return kept


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
