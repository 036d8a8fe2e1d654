"""The oracle as a judge, exact or with errors at two rates."""

from __future__ import annotations

import asyncio
import random

import pytest

from experiments.base_models.writers import Habits, trace
from fapo.data.miniature.world import tasks
from fapo.data.steps import split_steps
from fapo.judge.oracle import oracle
from fapo.types import Rollout
from tests.support.miniature import EXAMINED_RESPONSES, TASK


def test_the_verdicts_are_the_ground_truth() -> None:
    rollouts = [Rollout(TASK.problem(), response) for response, *_ in EXAMINED_RESPONSES.values()]
    verdicts = asyncio.run(oracle()(rollouts))
    assert [v.error_step for v in verdicts] == [step for _, _, step, _ in EXAMINED_RESPONSES.values()]
    assert {v.status for v in verdicts} == {"ok"}


def test_errors_come_at_the_given_rates_and_depend_on_the_rollout_alone() -> None:
    rng, rollouts = random.Random(0), []
    for task in tasks(0, 2000):
        rollouts.append(Rollout(task.problem(), trace(rng, task, Habits(guess=0.5))))
    true = [v.flawed for v in asyncio.run(oracle()(rollouts))]
    judge = oracle(false_negative_rate=0.3, false_positive_rate=0.1)
    verdicts = asyncio.run(judge(rollouts))
    assert verdicts == asyncio.run(judge(rollouts))
    assert all(
        v.error_step is None or v.error_step < len(split_steps(r.response, "lines"))
        for v, r in zip(verdicts, rollouts, strict=True)
    )
    passed = [not v.flawed for v, flawed in zip(verdicts, true, strict=True) if flawed]
    flagged = [v.flawed for v, flawed in zip(verdicts, true, strict=True) if not flawed]
    assert sum(passed) / len(passed) == pytest.approx(0.3, abs=0.05)
    assert sum(flagged) / len(flagged) == pytest.approx(0.1, abs=0.04)


def test_an_oracle_that_names_wrong_steps_flags_the_same_rollouts() -> None:
    rng = random.Random(0)
    rollouts = [Rollout(task.problem(), trace(rng, task, Habits())) for task in tasks(0, 2000)]
    plain, lost = (asyncio.run(oracle(0.3, 0.1, location_error_rate=rate)(rollouts)) for rate in (0.0, 0.5))
    assert [v.flawed for v in plain] == [v.flawed for v in lost]
    true = [v.error_step for v in asyncio.run(oracle()(rollouts))]
    named = [
        (found.error_step, step) for found, step in zip(lost, true, strict=True) if found.flawed and step is not None
    ]
    assert sum(found != step for found, step in named) / len(named) == pytest.approx(0.5, abs=0.08)
    assert all(
        v.error_step is None or v.error_step < len(split_steps(r.response, "lines"))
        for v, r in zip(lost, rollouts, strict=True)
    )


def test_a_blind_oracle_clears_the_flaws_of_these_kinds_alone() -> None:
    rollouts = [Rollout(TASK.problem(), response) for response, *_ in EXAMINED_RESPONSES.values()]
    kinds = [kind for *_, kind in EXAMINED_RESPONSES.values()]
    verdicts = asyncio.run(oracle(blind_to=("guess", "skip"))(rollouts))
    assert [v.flawed for v in verdicts] == [kind not in (None, "guess", "skip") for kind in kinds]
