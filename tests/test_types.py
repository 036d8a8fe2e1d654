"""Verdicts: their valid combinations of fields, and their rows in files, also in those of older versions."""

from __future__ import annotations

from typing import Any

import pytest

from fapo.judge.verdicts import named_step, verdict_from_row, verdict_row
from fapo.types import GroundTruth, Problem, Rollout, Verdict, rollout_class

VERDICTS = [
    Verdict.from_step(None, "fine", 3),
    Verdict.from_step(0, "the first", 3),
    Verdict("ok", flawed=True, critique=r"\boxed{yes}"),
    Verdict("ok", flawed=True, reason="flagged unread: 1 words outside the box, min_words is 3"),
    Verdict("unparsable", critique="hm", reason="no \\boxed{}"),
    Verdict("failed", reason="HTTP 500", num_tokens=1),
]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"status": "ok"}, "needs flawed="),
        ({"status": "ok", "error_step": 1}, "needs flawed="),
        ({"status": "ok", "flawed": False, "error_step": 1}, "a step needs flawed=True"),
        ({"status": "failed", "flawed": False}, "flawed must be None"),
        ({"status": "unparsable", "error_step": 0}, "a step needs flawed=True"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Verdict(**fields)


@pytest.mark.parametrize("error_step", [None, 0, 3])
def test_from_step(error_step: int | None) -> None:
    verdict = Verdict.from_step(error_step, "text", 7)
    assert verdict == Verdict("ok", error_step is not None, error_step, "text", num_tokens=7)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_row_is_read_back(verdict: Verdict) -> None:
    assert verdict_from_row(verdict_row(verdict)) == verdict


def test_no_verdict_is_a_row_with_the_same_columns() -> None:
    assert list(verdict_row(None)) == list(verdict_row(VERDICTS[0]))
    assert verdict_from_row(verdict_row(None)) is None


OLD_ROLLOUT = {"status": "ok", "error_step": 0, "flawed": True, "critique_tokens": 3}
OLD_VOTE = {"status": "ok", "critique": r"here \boxed{0}", "num_tokens": 3}


@pytest.mark.parametrize(
    ("row", "flawed", "error_step"),
    [
        (OLD_ROLLOUT | {"critique": r"\boxed{0}"}, True, 0),
        (OLD_ROLLOUT | {"critique": "oracle"}, True, 0),
        (OLD_ROLLOUT | {"critique": r"so \boxed{Yes}"}, True, None),
        (OLD_ROLLOUT | {"critique": ""}, True, None),
        (
            OLD_ROLLOUT | {"critique": "", "reason": "flagged unread: 1 words outside the box, min_words is 3"},
            True,
            None,
        ),
        (OLD_ROLLOUT | {"critique": r"\boxed{2}", "error_step": 2}, True, 2),
        (OLD_ROLLOUT | {"critique": r"\boxed{-1}", "error_step": None, "flawed": False}, False, None),
        (OLD_VOTE | {"error_step": 0}, True, 0),
        (OLD_VOTE | {"error_step": None}, False, None),
        (OLD_VOTE | {"error_step": 0, "critique": r"\boxed{yes}"}, True, None),
    ],
)
def test_rows_of_older_versions(row: dict[str, Any], flawed: bool, error_step: int | None) -> None:
    verdict = verdict_from_row(row)
    assert verdict
    assert (verdict.flawed, verdict.error_step, named_step(row)) == (flawed, error_step, error_step)


def test_predictions_from_other_programs_keep_step_0() -> None:
    assert named_step({"id": "a", "error_step": 0}) == 0
    assert named_step({"id": "a", "error_step": 0, "status": "ok", "critique": ""}) == 0


@pytest.mark.parametrize(
    ("correct", "flawed", "expected"),
    [
        (True, False, "fully_correct"),
        (True, True, "flawed"),
        (True, None, "unscored"),
        (False, False, "wrong"),
        (False, True, "wrong"),
        (False, None, "wrong"),
    ],
)
def test_class_of_a_rollout(correct: bool, flawed: bool | None, expected: str) -> None:
    assert rollout_class(correct, flawed) == expected


@pytest.mark.parametrize(
    ("num_tokens", "max_tokens", "truncated"),
    [(9, 10, False), (10, 10, True), (11, 10, True), (10, 0, False), (0, 0, False)],
)
def test_truncated_at_the_limit(num_tokens: int, max_tokens: int, truncated: bool) -> None:
    rollout = Rollout.from_text(Problem("p", "?", "1"), "text", num_tokens, max_tokens)
    assert rollout == Rollout(Problem("p", "?", "1"), "text", num_tokens, truncated)


def test_ground_truth() -> None:
    assert (GroundTruth(0, "slip").flawed, GroundTruth(None).flawed) == (True, False)
