"""vLLM on the CPU serves the miniature's GenRM to `fapo judge` and `fapo bench`; `make test-vllm` runs these tests."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fapo.data.jsonl import read_jsonl, write_jsonl
from fapo.data.miniature.sets import labelled
from fapo.inference.client import ChatClient
from fapo.inference.models import model_folder
from fapo.judge.template import build_prompt, load_template
from fapo.types import Completion, Message
from tests.support.model_server import ModelServer
from tests.support.vllm_cpu import SERVER_MARKS, vllm_on_cpu

pytestmark = SERVER_MARKS
GENRM = Path(model_folder("miniature:genrm"))
NUM = 24
SOLUTIONS = labelled("miniature:critic-test", NUM)
SERVED = ("--model", "genrm")
BLOCK = 32
"""Size of a block of the prefix cache in tokens; attention on the CPU takes multiples of 32."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    options = ("--generation-config", "vllm", "--enable-prefix-caching", "--block-size", str(BLOCK))
    with vllm_on_cpu("genrm", tmp_path_factory.mktemp("vllm") / "log", GENRM.parent, *options) as server:
        yield server


def fapo(*arguments: str | Path) -> str:
    """Run a command of fapo and return its standard output."""
    command = [sys.executable, "-m", "fapo.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def counted(server: ModelServer, name: str, **labels: str) -> float:
    """Return the value of one of vLLM's counters."""
    page = httpx.get(server.url.removesuffix("/v1") + "/metrics", timeout=60).text
    lines = re.findall(rf"^vllm:{name}{{(.*)}} (\S+)$", page, re.MULTILINE)
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return sum(float(value) for found, value in lines if all(label in found for label in wanted))


def answered(file: Path) -> list[tuple[Any, ...]]:
    return [(row["id"], row["status"], row["error_step"], row["critique"]) for row in read_jsonl(file)]


def prompts() -> list[list[Message]]:
    template = load_template("compact")
    return [build_prompt(template, s.problem.text, s.problem.reference, s.steps) for s in SOLUTIONS]


def ask(server: ModelServer, conversations: list[list[Message]], **settings: Any) -> list[Completion]:
    settings = {"temperature": 0.0, "max_tokens": 80, "retries": 0, **settings}
    return asyncio.run(ChatClient(server.url, "genrm", **settings)(conversations))


def test_bench_gets_the_critiques_of_the_model_in_this_process(server: ModelServer, tmp_path: Path) -> None:
    command = ["bench", "flawed-positive", "--data", "miniature:critic-test", "--limit", str(NUM)]
    command += ["--template", "compact", "--max-tokens", "80", "--json"]
    here = json.loads(fapo(*command, "--judge", "local:miniature:genrm", "--out", tmp_path / "here.jsonl"))
    before = counted(server, "request_success_total", finished_reason="stop")
    there = json.loads(fapo(*command, *SERVED, "--judge", server.url, "--out", tmp_path / "there.jsonl"))
    assert counted(server, "request_success_total", finished_reason="stop") == before + NUM
    answers = [answered(tmp_path / "here.jsonl"), answered(tmp_path / "there.jsonl")]
    assert len(answers[0]) == NUM
    assert answers[0] == answers[1]
    assert 0 < here["num_flawed"] < NUM
    assert [here[key] for key in ("precision", "recall", "f1")] == [there[key] for key in ("precision", "recall", "f1")]


def test_judge_gets_verdicts(server: ModelServer, tmp_path: Path) -> None:
    rows = [
        {"id": s.problem.id, "problem": s.problem.text, "reference": s.problem.reference, "steps": list(s.steps)}
        for s in SOLUTIONS
    ]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    command = ["judge", tmp_path / "rows.jsonl", "--template", "compact", "--max-tokens", "80", *SERVED]
    fapo(*command, "--judge", server.url, "--out", tmp_path / "verdicts.jsonl")
    found = list(read_jsonl(tmp_path / "verdicts.jsonl"))
    assert [row["status"] for row in found] == ["ok"] * len(rows)
    assert {row["flawed"] for row in found} == {True, False}


def test_a_verdict_has_the_probability_of_the_model_in_this_process(server: ModelServer, tmp_path: Path) -> None:
    command = ["bench", "flawed-positive", "--data", "miniature:critic-test", "--limit", str(NUM), "--logprobs"]
    command += ["--template", "compact", "--max-tokens", "80"]
    fapo(*command, "--judge", "local:miniature:genrm", "--out", tmp_path / "here.jsonl")
    fapo(*command, *SERVED, "--judge", server.url, "--out", tmp_path / "there.jsonl")
    here, there = (list(read_jsonl(tmp_path / name)) for name in ("here.jsonl", "there.jsonl"))
    assert len(here) == NUM
    for one, other in zip(here, there, strict=True):
        assert one["flag_probability"] == pytest.approx(other["flag_probability"], rel=1e-2, abs=1e-7)


def test_the_temperature_changes_no_probability(server: ModelServer) -> None:
    asked = {"logprobs_after": "\\boxed{", "extra_body": {"seed": 7}}
    cold = ask(server, prompts()[:4], **asked)
    hot = ask(server, prompts()[:4], **asked, temperature=0.2)
    same = [(one, other) for one, other in zip(cold, hot, strict=True) if one.text == other.text]
    assert same
    for one, other in same:
        pairs = zip(one.token_choices, other.token_choices, strict=True)
        for (text, logprob), (other_text, other_logprob) in ((a.alternatives[0], b.alternatives[0]) for a, b in pairs):
            assert text == other_text and logprob == pytest.approx(other_logprob, abs=1e-3)


def test_many_requests_share_steps_of_the_engine(server: ModelServer) -> None:
    before = counted(server, "generation_tokens_total"), counted(server, "iteration_tokens_total_count")
    answers = ask(server, prompts(), concurrency=16)
    tokens = counted(server, "generation_tokens_total") - before[0]
    steps = counted(server, "iteration_tokens_total_count") - before[1]
    assert not [answer.error for answer in answers if answer.error]
    assert tokens == sum(answer.num_tokens for answer in answers)
    assert tokens > 2 * steps, "if requests ran one after the other, a step would write one token"


def test_a_prompt_that_begins_like_another_uses_the_prefix_cache(server: ModelServer) -> None:
    problem = "start 24" + ", add 7" * 40 + "; mod 10"
    template = load_template("compact")
    asked = [build_prompt(template, problem, "4", ["24+7=31", f"31+7={number}"]) for number in (38, 39)]
    before = counted(server, "prefix_cache_hits_total")
    for prompt in asked:
        ask(server, [prompt], max_tokens=1)
    assert counted(server, "prefix_cache_hits_total") - before >= 2 * BLOCK


def test_a_prompt_beyond_the_context_is_a_failed_judgement(server: ModelServer) -> None:
    problem = "start 24" + ", add 7" * 600 + "; mod 10"
    prompt = build_prompt(load_template("compact"), problem, "4", ["24+7=31"])
    (answer,) = ask(server, [prompt], retries=4)
    assert answer.error.startswith("HTTP 400")
    assert "given up" not in answer.error, "a retry would not help"
