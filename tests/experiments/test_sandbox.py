"""Programs judged by unit tests in a sandbox: the checker, an evaluation with its FP ratio, and rewards for TRL."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from experiments import sandbox
from fapo.data.jsonl import read_jsonl, write_jsonl
from fapo.errors import ConfigError, DataError, EngineError
from fapo.evaluation.policy.output import write
from fapo.evaluation.policy.run import evaluate
from fapo.evaluation.policy.settings import EvalSettings
from fapo.trl import flawed_aware_reward
from fapo.types import Problem
from tests.support.chat_server import Reply, chat_server
from tests.support.sandbox_server import SandboxServer, sandbox_server

TESTS = json.dumps({"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]})
ADD = json.dumps({"inputs": ["1\n2", "[1]\n[2]"], "outputs": ["3", "[1,2]"], "fn_name": "add"})
SUM = "print(sum(map(int, input().split())))"
PROBLEM = Problem("p1", "Print the sum of the numbers.", TESTS)


def program(code: str, tag: str = "python") -> str:
    return f"I read the numbers and add them.\n\n```{tag}\n{code}\n```\n"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sandbox, "RUN_SECONDS", 60)
    monkeypatch.setattr(sandbox, "PAUSE", 0.01)
    with sandbox_server() as running:
        monkeypatch.setenv(sandbox.URL_VARIABLE, running.url)
        yield running


def passes(response: str, reference: str = TESTS) -> bool:
    return asyncio.run(sandbox.passes_tests(response, reference, PROBLEM))


CASES = [
    (program(SUM), TESTS, True),
    (program(SUM, "py"), TESTS, True),
    (program(SUM, ""), TESTS, True),
    (program("print(3)"), TESTS, False),
    (program(SUM) + program("print(3)"), TESTS, False),  # the last one counts
    (program("print('3  ')\nprint()") + program(SUM), TESTS, True),
    (program("import sys; sys.exit(1)"), TESTS, False),
    (program("def"), TESTS, False),
    (SUM, TESTS, False),
    (program(SUM, "ruby"), TESTS, False),
    (program("def add(a, b): return a + b"), ADD, True),
    (program("class Solution:\n    def add(self, a, b):\n        return a + b"), ADD, True),
    (program("def sub(a, b): return a - b"), ADD, False),
    (program("def add(a, b): return a - b"), ADD, False),
]


@pytest.mark.parametrize(("response", "reference", "right"), CASES)
def test_programs(server: SandboxServer, response: str, reference: str, right: bool) -> None:
    assert passes(response, reference) is right


def test_the_request_is_that_of_sandbox_fusion_and_a_failure_ends_the_tests(server: SandboxServer) -> None:
    assert not passes(program("print(7)"))
    (request,) = server.requests
    assert request == {
        "code": "print(7)\n",
        "language": "python",
        "stdin": "1 2\n",
        "compile_timeout": 60,
        "run_timeout": 60,
        "memory_limit_MB": 1024,
        "files": {},
        "fetch_files": [],
    }


def test_a_program_that_never_ends_is_wrong(server: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "RUN_SECONDS", 0.5)
    assert not passes(program("while True: pass"))


def test_a_sandbox_that_fails_is_an_error_and_no_result(server: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.statuses = [504, 503]
    assert passes(program(SUM)), "it answers at the third try"
    server.statuses = [500, 500, 500]
    with pytest.raises(EngineError, match="does not run programs: HTTP 500"):
        passes(program(SUM))
    server.statuses = [404]
    with pytest.raises(EngineError, match="HTTP 404"):
        passes(program(SUM))
    server.down = True
    with pytest.raises(EngineError, match="the sandbox failed: status SandboxError, no runner is free"):
        passes(program(SUM))
    monkeypatch.setenv(sandbox.URL_VARIABLE, "http://127.0.0.1:9/run_code")
    with pytest.raises(EngineError, match="does not run programs: ClientConnectorError"):
        passes(program(SUM))
    monkeypatch.delenv(sandbox.URL_VARIABLE)
    with pytest.raises(ConfigError, match="set FAPO_SANDBOX_URL"):
        passes(program(SUM))


@pytest.mark.parametrize(
    "reference", ["7", "{}", '{"inputs": [], "outputs": []}', '{"inputs": ["1"], "outputs": [1]}', '{"inputs": ["1"]}']
)
def test_a_reference_without_unit_tests(server: SandboxServer, reference: str) -> None:
    with pytest.raises(DataError, match="problem p1: the reference must be JSON with inputs and outputs"):
        passes(program(SUM), reference)


def test_an_evaluation_has_accuracy_and_fp_ratio(server: SandboxServer, tmp_path: Path) -> None:
    """Two programs pass their tests, and the text beside one of them is false. One fails, and one answer has none."""
    said = {
        "first": program(SUM),
        "second": "The sum is the product.\n\n" + program(SUM),
        "third": program("print(7)"),
        "fourth": "I cannot.",
    }
    rows = [{"id": name, "problem": f"{name}: print the sum.", "reference": TESTS} for name in said]
    write_jsonl(tmp_path / "problems.jsonl", rows)

    def policy(body: dict[str, Any], _: int) -> Reply:
        return Reply(said[body["messages"][-1]["content"].partition(":")[0]])

    def judge(body: dict[str, Any], _: int) -> Reply:
        return Reply("\\boxed{0}" if "product" in body["messages"][-1]["content"] else "\\boxed{-1}")

    with chat_server(policy) as solver, chat_server(judge) as reader:
        settings = EvalSettings(
            data=(str(tmp_path / "problems.jsonl"),),
            policy=(solver.url,),
            policy_model=("m",),
            judge=(reader.url,),
            judge_model="j",
            out=tmp_path / "out.jsonl",
            checker="experiments.sandbox:passes_tests",
        )
        found = write(settings, evaluate(settings))
    assert (found["avg_at_k"], found["fp_ratio"], found["reliable_accuracy"]) == (0.5, 0.5, 0.25)
    assert (found["undecided_rate"], found["settings"]["checker"]) == (0.0, "experiments.sandbox:passes_tests")
    table = list(read_jsonl(settings.out))
    assert [row["reference"] for row in table] == [TESTS] * 4, "unit tests are no worked solution"
    assert [row["samples"][0]["correct"] for row in table] == [True, True, False, False]


def test_rewards_for_trl(server: SandboxServer) -> None:
    texts = [program(SUM), program("print(7)"), "The product.\n\n" + program(SUM)]

    def judge(body: dict[str, Any], _: int) -> Reply:
        return Reply("\\boxed{0}" if "The product" in body["messages"][-1]["content"] else "\\boxed{-1}")

    with chat_server(judge) as reader:
        reward = flawed_aware_reward(reader.url, model="j", checker=sandbox.passes_tests)
        columns: dict[str, list[Any]] = {}
        given = {"prompts": ["Add."] * 3, "completions": texts, "completion_ids": [[1]] * 3, "reference": [TESTS] * 3}
        assert asyncio.run(reward(**given)) == [1.0, -1.0, 0.0]
        server.down = True
        assert asyncio.run(reward(**given, log_extra=columns.__setitem__)) == [None] * 3
    assert columns["reason"][0].startswith("the checker failed: EngineError: the sandbox failed")
