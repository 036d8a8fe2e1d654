"""What the lines of rollouts were paid, on rows by hand."""

from __future__ import annotations

from typing import Any

import pytest

from experiments.first_error_credit import credit_of
from fapo.data.miniature.oracle import examine, is_answer_correct
from fapo.data.miniature.world import parse

TEXT = "start 52, minus 17, add 3; mod 5"


def row(problem: str, response: str, advantage: float | None, step: int | None = None, *, asked: bool = False) -> Any:
    """Return a row of rollouts.jsonl with the fields that are read."""
    task = parse(problem)
    truth = {"error_step": examine(task, response).error_step}
    correct = is_answer_correct(task, response)
    return {
        "step": 1,
        "problem_id": problem,
        "problem": problem,
        "response": response,
        "correct": correct,
        "advantage": advantage,
        "truth": truth,
        "status": "ok" if asked else "skipped",
        "flawed": step is not None if asked else None,
        "error_step": step,
    }


ROWS = [
    row(TEXT, "52-17=35\n35+3=38\n\\boxed{3}", 1.5),  # all right
    row(TEXT, "52-17=45\n45+3=48\n\\boxed{3}", 0.5),  # right, with the first error in the borrow
    row(TEXT, "52-17=35\n35+3=38\n\\boxed{4}", -1.0),  # wrong, in the box alone
    row(TEXT, "52-17=45\n45+3=48\n\\boxed{2}", -1.0),  # wrong, with no right line
    row("start 7, add 3; mod 5", "7+3=11\n\\boxed{1}", None),  # wrong, in a group without a correct one
]


def test_right_lines_before_the_first_error() -> None:
    found = credit_of(ROWS)
    assert (found.num_wrong, found.num_with_prefix, found.num_box, found.num_hopeless) == (3, 1, 1, 1)
    assert found.prefix == pytest.approx(2 / 3)
    assert found.right == pytest.approx((1.5 - 1.0) / 2)
    assert found.unpunished == pytest.approx(1.5 / 2), "0 instead of -1 for the line of the wrong rollout"
    assert found.first_wrong == pytest.approx((0.5 - 1.0) / 2)


def test_errors_that_the_judge_finds_in_wrong_rollouts() -> None:
    assert credit_of(ROWS).num_judged == 0
    wrong = "52-17=45\n45+3=48\n\\boxed{2}"  # the first line is wrong
    judged = [row(TEXT, wrong, -1.0, step, asked=True) for step in (0, 0, 1, None)]
    found = credit_of([*ROWS, *judged])
    assert (found.num_judged, found.num_found, found.num_located) == (4, 3, 2)
