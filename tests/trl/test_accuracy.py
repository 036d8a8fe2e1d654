"""The reward for right final answers, beside that of TRL."""

from __future__ import annotations

import asyncio
import functools
import multiprocessing
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trl.rewards

from fapo.trl import accuracy_reward
from fapo.types import Problem
from tests.trl.test_reward import dataset, train

ENDLESS = "9^{9^{9^{9}}}"
"""A tower of powers that no computer can evaluate."""


def said(*texts: str) -> list[Any]:
    """Return completions as conversations."""
    return [[{"role": "assistant", "content": text}] for text in texts]


ARGUMENTS = {
    "completions": said(r"\boxed{\frac{1}{3}}", r"My answer is \boxed{\frac{1}{2}}", r"\boxed{2}", "I give up"),
    "solution": [r"\frac{1}{3}", r"$\frac{1}{3}$", r"It is \boxed{2}.", "4"],
    "prompts": said(*"abcd"),
    "completion_ids": [[1]] * 4,
    "trainer_state": None,
}


def test_it_is_called_as_that_of_trl_and_agrees() -> None:
    ours, theirs = accuracy_reward(**ARGUMENTS), trl.rewards.accuracy_reward(**ARGUMENTS)
    assert ours == theirs == [1.0, 0.0, 1.0, 0.0]


def test_texts_thinking_and_missing_solutions() -> None:
    completions = [r"\boxed{3}", r"<think>\boxed{3}</think> so \boxed{4}", *said(r"\boxed{3}")]
    assert accuracy_reward(completions, ["3", "3", " "]) == [1.0, 0.0, None]
    assert accuracy_reward(completions, ["3", None, ""]) == [1.0, None, None]
    assert accuracy_reward([], []) == []


def test_what_is_logged() -> None:
    columns: dict[str, list[Any]] = {}
    metrics: dict[str, float] = {}
    texts = [r"\boxed{3}", "none", rf"\boxed{{{'1+' * 2000}1}}", r"\boxed{x+x}"]
    rewards = accuracy_reward(said(*texts), ["3", "3", "3", "2x"], columns.__setitem__, metrics.__setitem__)
    assert rewards == [1.0, 0.0, 0.0, 1.0]
    assert columns["solution"] == ["3", "3", "3", "2x"] and columns["answer"][::3] == ["3", "x+x"]
    assert columns["check"] == ["ok", "no final answer", "longer than 2000 characters", "ok"]
    assert metrics == {"accuracy_reward/undecided_rate": 0.25}


@pytest.mark.slow
def test_trl_trains_with_it(tiny_policy: Path, tmp_path: Path) -> None:
    rows = train(tiny_policy, tmp_path, accuracy_reward, dataset(answer="solution"))
    assert all(0 < row["reward"] < 1 and row["reward_std"] > 0 for row in rows)
    assert all(row["rewards/accuracy_reward/mean"] == pytest.approx(row["reward"]) for row in rows)
    assert all(row["accuracy_reward/undecided_rate"] == 0 for row in rows)


def rewards_in_a_thread(reward: Callable[..., list[float | None]]) -> None:
    """Exit with 0 if a thread gets the right rewards from a function that was pickled; one check never ends."""
    found: list[Any] = []
    completions = said(r"\boxed{x+x}", rf"\boxed{{{ENDLESS}}}")
    thread = threading.Thread(target=lambda: found.extend(reward(completions, ["2x", "7"])))
    thread.start()
    thread.join()
    sys.exit(0 if found == [1.0, 0.0] else 1)


@pytest.mark.slow
def test_a_daemonic_process_gets_rewards_in_a_thread() -> None:
    process = multiprocessing.get_context("spawn").Process(
        target=rewards_in_a_thread, args=[accuracy_reward], daemon=True
    )
    process.start()
    process.join(timeout=600)
    assert process.exitcode == 0


def failing(response: str, reference: str, problem: Problem) -> bool:
    """Return whether the response holds the question; fail for a response without text."""
    return response.index(problem.text) >= 0 if problem.text in response else 1 / len(response) < 0


@pytest.mark.parametrize("asked", ["prompts", "problem"])
def test_a_checker_of_the_user(asked: str) -> None:
    metrics: dict[str, float] = {}
    reward = functools.partial(accuracy_reward, checker=failing)
    question = said("a?") if asked == "prompts" else ["a?"]
    found = reward(said("a? 1", "b", ""), ["1"] * 3, log_metric=metrics.__setitem__, **{asked: question * 3})
    assert found == [1.0, 0.0, None]
    assert metrics == {"accuracy_reward/undecided_rate": 1 / 3}


def test_a_checker_may_be_async_inside_a_running_loop() -> None:
    async def check() -> list[float | None]:
        return accuracy_reward(["1", "2"], ["1", "1"], checker="tests.support.answer_checkers:ends_with_reference")

    assert asyncio.run(check()) == [1.0, 0.0]


@pytest.mark.slow
def test_trl_trains_with_a_checker(tiny_policy: Path, tmp_path: Path) -> None:
    reward = functools.partial(accuracy_reward, checker="tests.support.answer_checkers:even_length")
    rows = train(tiny_policy, tmp_path, reward, dataset(answer="solution"))
    assert all(0 < row["reward"] < 1 and row["accuracy_reward/undecided_rate"] == 0 for row in rows)
