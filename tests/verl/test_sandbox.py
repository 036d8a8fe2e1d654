"""The checker for programs beside verl's own client of the sandbox: the same requests, the same results."""

from __future__ import annotations

import asyncio
import json

import pytest
from verl.utils.reward_score import sandbox_fusion

from experiments import sandbox
from fapo.types import Problem
from tests.support.sandbox_server import sandbox_server

pytestmark = pytest.mark.verl

TESTS = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}
# not "add": verl's client imports all names of `operator`, so that a program without the function would pass
TOTAL = {"inputs": ["1\n2", "3\n4"], "outputs": ["3", "7"], "fn_name": "total"}
PROGRAMS = [
    (TESTS, "print(sum(map(int, input().split())))"),
    (TESTS, "print(7)"),
    (TESTS, "print('3\\n\\n' if '1' in input() else 7)"),
    (TESTS, "raise ValueError"),
    (TESTS, "def"),
    (TOTAL, "def total(a, b):\n    return a + b"),
    (TOTAL, "class Solution:\n    def total(self, a, b):\n        return a + b"),
    (TOTAL, "def total(a, b):\n    return a"),
    (TOTAL, "def other(a, b):\n    return a + b"),
]


@pytest.mark.parametrize(("tests", "code"), PROGRAMS)
def test_results_and_requests_are_those_of_verl(
    tests: dict[str, list[str]], code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    response = f"```python\n{code}\n```"
    with sandbox_server() as server:
        monkeypatch.setenv(sandbox.URL_VARIABLE, server.url)
        score, _ = sandbox_fusion.compute_score(server.url, None, sandbox.MEMORY_MB, response, dict(tests))
        theirs = server.requests.copy()
        ours = asyncio.run(sandbox.passes_tests(response, json.dumps(tests), Problem("p", "?", "")))
        mine = server.requests[len(theirs) :]
    assert ours is (score == 1.0)
    for request in mine:
        same = next(other for other in theirs if other["stdin"] == request["stdin"])
        assert request.keys() == same.keys()
        if "fn_name" not in tests:
            assert {**request, "code": request["code"].strip()} == {**same, "code": same["code"].strip()}
