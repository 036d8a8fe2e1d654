"""Records: contradictions in a verdict, the class of a rollout."""

from __future__ import annotations

from typing import Any

import pytest

from fapo.types import GroundTruth, Verdict, rollout_class


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


def test_ground_truth() -> None:
    assert (GroundTruth(0, "slip").flawed, GroundTruth(None).flawed) == (True, False)
