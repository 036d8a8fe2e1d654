"""Rows of LiveCodeBench become problems that the checker for programs understands."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from experiments import livecodebench, sandbox
from fapo.data.jsonl import write_jsonl
from fapo.data.problems import read_problems
from fapo.errors import DataError
from tests.support.sandbox_server import sandbox_server


def packed(pickled: bytes) -> str:
    return base64.b64encode(zlib.compress(pickled)).decode()


def pickled(text: str) -> bytes:
    """Return a text as pickle writes it in protocol 4: PROTO, FRAME, BINUNICODE, MEMOIZE, STOP."""
    body = b"X" + len(text.encode()).to_bytes(4, "little") + text.encode() + b"\x94."
    return b"\x80\x04\x95" + len(body).to_bytes(8, "little") + body


def row(**changes: Any) -> dict[str, Any]:
    public = [{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]
    private = [{"input": "5 6\n", "output": "11\n", "testtype": "stdin"}]
    return {
        "question_title": "Sum",
        "question_content": "Print {the} sum. ",
        "platform": "atcoder",
        "question_id": "abc1_a",
        "contest_id": "abc1",
        "contest_date": "2024-01-01T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": json.dumps(public),
        "private_test_cases": packed(pickled(json.dumps(private))),
        "metadata": "{}",
    } | changes


FUNCTION = row(
    question_id="3001",
    platform="leetcode",
    starter_code="class Solution:\n    def add(self, a: int, b: int) -> int:\n        ",
    public_test_cases=json.dumps([{"input": "1\n2", "output": "3", "testtype": "functional"}]),
    private_test_cases=json.dumps([{"input": "[1]\n[2]", "output": "[1, 2]", "testtype": "functional"}]),
    metadata=json.dumps({"func_name": "add"}),
)


def test_problems_are_solved_by_programs_that_pass_all_tests(tmp_path: Path, monkeypatch, capsys) -> None:
    write_jsonl(tmp_path / "lcb.jsonl", [row(), FUNCTION])
    out = tmp_path / "problems.jsonl"
    monkeypatch.setattr(sys, "argv", ["livecodebench", str(tmp_path / "lcb.jsonl"), "--out", str(out)])
    livecodebench.main()
    assert "2 problems" in capsys.readouterr().out
    text, function = read_problems(out)
    assert text.text.startswith("Print {the} sum.\n\nWrite a program that reads") and text.id == "abc1_a"
    assert "def add(self" in function.text and function.meta["platform"] == "leetcode"
    programs = {
        "a, b = map(int, input().split())\nprint(a + b)": (True, False),
        "print(3)": (False, False),  # passes the public test only
        "class Solution:\n    def add(self, a, b):\n        return a + b": (False, True),
    }
    with sandbox_server() as server:
        monkeypatch.setenv(sandbox.URL_VARIABLE, server.url)
        for code, expected in programs.items():
            response = f"```python\n{code}\n```"
            found = [asyncio.run(sandbox.passes_tests(response, p.reference, p)) for p in (text, function)]
            assert tuple(found) == expected, code


MAKES_A_FOLDER = b"cos\nmkdir\n(X\x04\x00\x00\x00eviltR."
"""Pickle that calls os.mkdir when it is loaded."""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"private_test_cases": packed(MAKES_A_FOLDER)},
            "holds no tests .*more than a text .* GLOBAL",
        ),
        ({"private_test_cases": packed(b"].")}, "more than a text is packed in it: EMPTY_LIST"),
        ({"private_test_cases": "bm8="}, "private_test_cases holds no tests"),
        ({"public_test_cases": "[{}]"}, "public_test_cases holds no tests"),
        ({"public_test_cases": None}, "public_test_cases holds no tests"),
        ({"metadata": "[]"}, "not a row of LiveCodeBench"),
        ({"starter_code": None}, "not a row of LiveCodeBench"),
    ],
)
def test_rows_that_do_not_fit_are_errors_and_run_nothing(changes, message, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=rf"lcb\.jsonl:1: .*{message}"):
        livecodebench.problem_row("lcb.jsonl:1", row(**changes))
    assert not list(tmp_path.iterdir())
