"""When a run stops because its judge, or another model, fails too often."""

from __future__ import annotations

from typing import Any

import pytest

from fapo.errors import EngineError, JudgeDownError
from fapo.judge.circuit_breaker import CircuitBreaker, repeat_command
from fapo.types import Verdict

BAD, GOOD = "HTTP 500", ""

CASES = [
    # settings, batches of results, whether the last batch stops the run
    ({"max_failure_rate": 0.5}, [[BAD] * 8], True),
    ({"max_failure_rate": 0.5}, [[BAD] * 5 + [GOOD] * 3], True),
    ({"max_failure_rate": 0.5}, [[BAD] * 4 + [GOOD] * 4], False),  # not above the rate
    ({"max_failure_rate": 0.5}, [[BAD] * 7], False),  # too few results
    ({"max_failure_rate": 0.5}, [[BAD]] * 8, True),  # small batches count together
    ({"max_failure_rate": 0.0}, [[BAD] + [GOOD] * 7], True),
    ({"max_failure_rate": 0.0}, [[GOOD] * 8], False),
    ({"max_failure_rate": 1.0}, [[BAD] * 500], False),  # never
    ({"max_failure_rate": 0.5}, [[GOOD] * 1000, [BAD] * 50], False),  # half of the last 100
    ({"max_failure_rate": 0.5}, [[GOOD] * 1000, [BAD] * 51], True),
    ({"max_failure_rate": 0.5}, [[GOOD] * 200 + [BAD] * 100], False),  # a large batch counts as a whole
    ({"max_failure_rate": 0.5}, [[GOOD] * 100 + [BAD] * 200], True),
    ({}, [[BAD]] * 8, True),  # commands: nothing is answered
    ({}, [[BAD]] * 7, False),
    ({}, [[GOOD], *[[BAD]] * 99], False),
    ({}, [[GOOD], *[[BAD]] * 100], True),
    ({}, [[BAD] * 7 + [GOOD], [BAD] * 92], False),
    ({"num_expected": 2}, [[BAD] * 2], True),  # no more will come
    ({"num_expected": 2}, [[BAD], [GOOD]], False),
    ({"num_expected": 5}, [[GOOD] * 3, [BAD] * 2], False),  # three were answered before
    ({}, [[], []], False),
]


@pytest.mark.parametrize(("settings", "batches", "stops"), CASES)
def test_when_the_run_stops(settings: dict[str, Any], batches: list[list[str]], stops: bool) -> None:
    breaker = CircuitBreaker(**settings)
    *before, last = batches
    for batch in before:
        breaker.record(batch)
    if not stops:
        breaker.record(last)
        return
    with pytest.raises(JudgeDownError, match=r"^the judge is down: \d+ of the last \d+ requests failed, .*HTTP 500"):
        breaker.record(last)


def test_message_of_the_error() -> None:
    breaker = CircuitBreaker(name="the policy p", remedy=repeat_command("runs/cache"), error=EngineError)
    with pytest.raises(EngineError) as caught:
        breaker.record(["HTTP 500", "no answer", "HTTP 500", *["HTTP 400"] * 6])
    assert str(caught.value) == (
        "the policy p is down: 9 of the last 9 requests failed, 6 of them with: HTTP 400. "
        "Restore it and give the same command again; answers so far are in runs/cache"
    )
    with pytest.raises(
        JudgeDownError, match=r"with: HTTP 401: no\. the server wants another key: set FAPO_API_KEY\. Re"
    ):
        CircuitBreaker().record(["HTTP 401: no"] * 8)
    with pytest.raises(JudgeDownError, match=r"with: HTTP 401: no\. Restore it"):
        CircuitBreaker(causes=()).record(["HTTP 401: no"] * 8)
    with pytest.raises(JudgeDownError, match=r"resume, or allow a larger max_failure_rate \(now 0\.25\)$"):
        CircuitBreaker(0.25).record(["x"] * 8)


def test_only_failed_verdicts_are_failures() -> None:
    breaker = CircuitBreaker()
    breaker.record_verdicts([Verdict("unparsable", reason="no box")] * 8)
    breaker = CircuitBreaker()
    with pytest.raises(JudgeDownError, match="no reason given"):
        breaker.record_verdicts([Verdict("failed")] * 8)
