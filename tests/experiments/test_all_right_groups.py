"""Decoupled advantages with another weight of the groups that are all right."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from experiments.all_right_groups import ARM, WORLD, group_rates, print_differences, weighted_advantages
from experiments.paper.comparison import SHOWN, Result
from fapo.config.schema import DecoupledReward
from fapo.data.jsonl import write_jsonl
from fapo.rewards.decoupled import decoupled_advantages
from fapo.rewards.scorer import batch_advantages
from fapo.types import Problem, Reward, Rollout, ScoredRollout, Verdict

OUTCOME = [[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, -1.0], [1.0, 1.0, None, 1.0]]
PROCESS = [[0.0, -1.0, 0.0, 0.0], [0.0, -1.0, 0.0, None], [0.0, -1.0, None, 0.0]]
"""Two groups that are all right, one of them with an unscored rollout, and one with a wrong answer in between."""


@given(st.floats(0, 5), st.floats(0, 5))
def test_only_groups_without_a_wrong_answer_change(weight: float, all_right: float) -> None:
    plain = decoupled_advantages(OUTCOME, PROCESS, weight)
    found = weighted_advantages(OUTCOME, PROCESS, weight, all_right)
    np.testing.assert_array_equal(found[1], plain[1])
    np.testing.assert_allclose(found[[0, 2]], all_right * plain[[0, 2]])
    np.testing.assert_array_equal(weighted_advantages(OUTCOME, PROCESS, weight, 1.0), plain)


def test_the_scorer_uses_the_weight() -> None:
    problem = Problem("p", "start 1, add 1", "2")
    rollouts = [
        ScoredRollout(
            Rollout(problem, "1+1=2"), True, Verdict("ok", flawed), Reward(1.0 - flawed, {"flaw": -float(flawed)})
        )
        for flawed in (False, True, False, False)
    ]
    plain = batch_advantages(rollouts, ["g"] * 4, DecoupledReward())
    with patch("fapo.rewards.scorer.decoupled_advantages", partial(weighted_advantages, all_right=3.0)):
        found = batch_advantages(rollouts, ["g"] * 4, DecoupledReward())
    assert plain[1] < 0 < plain[0]
    np.testing.assert_allclose(found, 3 * plain)


def test_differences_are_those_of_the_same_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    def result(seed: int, value: float) -> Result:
        return Result(WORLD, ARM, seed, dict.fromkeys(SHOWN, 0.0), dict.fromkeys(SHOWN, value))

    equal = {seed: result(seed, 0.1 * seed) for seed in range(4)}
    print_differences(Console(width=160), {0.0: [result(seed, 0.1 * seed + 0.02) for seed in (1, 2)]}, equal)
    rows = [
        [cell.strip() for cell in row.split("|")[1:-1]] for row in capsys.readouterr().out.splitlines() if "|" in row
    ]
    assert rows[2:] == [
        ["1", "2", *["15.0 %"] * 4],
        ["0", "2", *["17.0 %"] * 4],
        ["0 - 1", "2", *["+2.0 [+2.0, +2.0]"] * 4],
    ]


def test_groups_of_a_run_are_counted_by_step(tmp_path: Path) -> None:
    rows = [
        {"split": split, "step": step, "problem_id": problem, "correct": correct, "flawed": flawed}
        for split, step, problem, *rollouts in (
            ("train", 1, "a", (True, True), (True, False)),
            ("train", 2, "a", (True, False), (True, None)),
            ("train", 10, "b", (True, False), (False, None)),
            ("validation", 10, "a", (True, None)),
            ("train", 11, "a", (False, None), (False, None)),
        )
        for correct, flawed in rollouts
    ]
    write_jsonl(tmp_path / "rollouts.jsonl", rows)
    assert group_rates(tmp_path) == {"1-10": (2 / 3, 1 / 3), "11-20": (0.0, 0.0)}
