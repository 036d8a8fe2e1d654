"""Advantages of other kinds of reward on the rows of a run, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.advantages_of_kinds import KINDS, advantages_of, by_steps
from fapo.config.schema import FilterReward

Row = dict[str, Any]


def row(kind: str, step: int, problem: str, *, truly_flawed: bool | None = None, split: str = "train") -> Row:
    """Return a row: a is passed by the judge, f flagged, w wrong, u without a verdict."""
    status = {"w": "skipped", "u": "failed"}.get(kind, "ok")
    flawed = {"a": False, "f": True}.get(kind)
    truth = (kind == "f") if truly_flawed is None else truly_flawed
    return {
        "step": step,
        "split": split,
        "problem_id": problem,
        "correct": kind != "w",
        "status": status,
        "flawed": flawed,
        "error_step": 0 if flawed else None,
        "truth": {"error_step": 0 if truth else None},
    }


GROUP = [row(kind, 1, "p") for kind in "afww"]
"""Fully correct, flawed and two wrong rollouts."""


@pytest.mark.parametrize(
    ("kind", "expected", "used", "flawed"),
    [
        ("outcome", {"fully_correct": 0.866, "flawed": 0.866, "wrong": -0.866}, 1.0, 0.5),
        ("fapo", {"fully_correct": 1.306, "flawed": 0.261, "wrong": -0.783}, 1.0, 1 / 6),
        ("fapo, lambda = 2", {"fully_correct": 1.5, "flawed": -0.5, "wrong": -0.5}, 1.0, 0.0),
        ("decoupled, w = 1", {"fully_correct": 1.573, "flawed": 0.159, "wrong": -0.866}, 1.0, 0.0917),
        ("filter, keeps 4", {"fully_correct": 1.155, "flawed": 0.0, "wrong": -0.577}, 0.75, 0.0),
    ],
)
def test_one_group(kind: str, expected: dict[str, float], used: float, flawed: float) -> None:
    found = advantages_of(GROUP, KINDS[kind])
    assert dict(found.by_truth) == pytest.approx(expected, abs=1e-3)
    assert found.used == used
    assert found.flawed_fraction == pytest.approx(flawed, abs=1e-3)


def test_classes_are_those_of_the_truth_and_groups_those_of_the_step() -> None:
    missed = row("a", 1, "p", truly_flawed=True)
    found = advantages_of([missed, row("w", 1, "p"), row("u", 1, "p"), row("a", 2, "p")], KINDS["fapo"])
    assert found.by_truth["flawed"] == pytest.approx(0.707, abs=1e-3), "the judge has missed it"
    assert found.by_truth["fully_correct"] == 0, "no verdict, and a group of one"
    assert found.used == 0.5
    assert advantages_of(GROUP, FilterReward(keep=2)).used == 0.5


def test_ranges_of_steps() -> None:
    rows = [row("a", step, "p") for step in (1, 10, 11, 25)] + [row("a", 1, "p", split="validation")]
    assert {name: [r["step"] for r in found] for name, found in by_steps(rows, 10).items()} == {
        "1-10": [1, 10],
        "11-20": [11],
        "21-30": [25],
    }
