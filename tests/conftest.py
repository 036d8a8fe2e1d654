"""Fixtures for all tests: models of a few thousand parameters, with which whole training runs are fast."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the marker `slow` to every test that needs a trained model."""
    for item in items:
        if {"tiny_policy", "tiny_genrm", "miniature_prm"}.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def tiny_policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a policy that writes at most one sum and then guesses an answer, which is often right."""
    from experiments.base_models.build import Example, Schedule, fit
    from experiments.base_models.models import new_model, save
    from experiments.base_models.writers import Habits, trace
    from fapo.data.miniature.world import Difficulty, make

    short = Difficulty((1, 2), ("mod 2", "mod 5", "mod 10", "choice"))

    def examples() -> Iterator[list[Example]]:
        rng = random.Random(0)
        while True:
            drawn = [make(rng, short) for _ in range(32)]
            yield [(task.text, trace(rng, task, Habits(guess=1.0))) for task in drawn]

    return _fitted(fit, save, new_model, examples(), Schedule(100, 32, 1e-2), tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="session")
def tiny_genrm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a judge that answers with a step index, mostly a valid one."""
    from experiments.base_models.build import Example, Schedule, fit, judge_prompt
    from experiments.base_models.models import new_model, save
    from experiments.base_models.writers import Habits, trace
    from fapo.data.miniature.world import make

    def examples() -> Iterator[list[Example]]:
        rng = random.Random(0)
        while True:
            drawn = [make(rng) for _ in range(32)]
            traces = [trace(rng, task, Habits(guess=1.0)) for task in drawn]
            boxes = [f"\\boxed{{{rng.choice((-1, 0))}}}" for _ in drawn]
            yield [(judge_prompt(*pair), box) for pair, box in zip(zip(drawn, traces, strict=True), boxes, strict=True)]

    return _fitted(fit, save, new_model, examples(), Schedule(60, 32, 1e-2), tmp_path_factory.mktemp("genrm"))


@pytest.fixture(scope="session")
def miniature_prm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a process reward model of the miniature, which is better than chance."""
    from tests.support.prm import train_prm

    return train_prm(tmp_path_factory.mktemp("prm"))


def _fitted(fit, save, new_model, examples, schedule, folder: Path) -> Path:
    model = new_model(0, hidden_size=32, num_layers=1, num_heads=2)
    fit(model, examples, schedule, lambda *_: None)
    save(model, folder)
    return folder
