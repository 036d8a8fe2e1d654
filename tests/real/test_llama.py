"""`fapo judge` asks the server of llama.cpp with SmolLM2, a real model."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fapo.config.schema import ServedJudge
from fapo.data.jsonl import read_jsonl, write_jsonl
from fapo.judge.from_config import open_judge
from fapo.judge.template import build_prompt, load_template, max_critique
from fapo.judge.verdicts import parse_verdict
from fapo.types import Problem, Verdict
from tests.support.llama_server import __file__ as PROGRAM
from tests.support.model_server import ModelServer, running
from tests.support.processes import finished, start

STEPS = ("52-17=35", "35+3=38\n\\boxed{38}")
QUESTIONS = [Problem(str(i), f"What is {i}+52-17+3?", str(38 + i)) for i in range(4)]
MAX_TOKENS = 24


@pytest.fixture(scope="module")
def server(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    command = [sys.executable, PROGRAM, str(weights / "smollm2.gguf")]
    with running(lambda port: [*command, str(port)], tmp_path_factory.mktemp("llama") / "log") as server:
        yield server


def test_the_verdict_is_that_of_the_text_of_the_server(server: ModelServer, tmp_path: Path) -> None:
    rows = [{"id": p.id, "problem": p.text, "answer": p.reference, "steps": STEPS} for p in QUESTIONS]
    write_jsonl(tmp_path / "solutions.jsonl", rows)
    out = tmp_path / "verdicts.jsonl"
    judge = ["--judge", server.url, "--model", "smollm2", "--max-tokens", str(MAX_TOKENS), "--concurrency", "1"]
    code, said = finished(start("judge", tmp_path / "solutions.jsonl", "--all", "--out", out, *judge))
    assert code == 0, said
    found = {row["id"]: row for row in read_jsonl(out)}
    assert found.keys() == {problem.id for problem in QUESTIONS}
    assert [found[p.id]["correct"] for p in QUESTIONS] == [True, False, False, False]
    template = load_template("locate")
    for problem in QUESTIONS:
        messages = build_prompt(template, problem.text, problem.reference, STEPS)
        body = {"messages": messages, "max_tokens": MAX_TOKENS, "temperature": 0.0}
        answer = httpx.post(f"{server.url}/chat/completions", json={"model": "smollm2", **body}, timeout=300).json()
        text = answer["choices"][0]["message"]["content"]
        row, verdict = found[problem.id], parse_verdict(text, len(STEPS))
        if answer["choices"][0]["finish_reason"] == "length":
            verdict = Verdict("unparsable")
        assert text.strip()
        assert (row["critique"], row["status"], row["error_step"]) == (text, verdict.status, verdict.error_step)


@pytest.mark.parametrize("max_tokens", [70, 160])
def test_a_verdict_in_json_is_valid_however_short_the_limit_is(server: ModelServer, max_tokens: int) -> None:
    """The grammar of the server allows no other text, and ends a critique that repeats itself."""
    judge = ServedJudge(model="smollm2", urls=(server.url,), format="json", max_tokens=max_tokens, concurrency=1)
    solutions = [(problem, STEPS) for problem in QUESTIONS]

    async def judged() -> list[Verdict]:
        async with open_judge(judge) as genrm:
            return await genrm.judge_steps(solutions)

    verdicts = asyncio.run(judged())
    assert {verdict.status for verdict in verdicts} == {"ok"}
    lengths = [len(json.loads(verdict.critique)["critique"]) for verdict in verdicts]
    assert max(lengths) <= (max_critique(max_tokens) or 0)
