"""Tokens of models and their price: from the answers of a server to the sums of a judge and of the commands."""

from __future__ import annotations

import asyncio
import copy
import json
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.config.schema import ServedJudge
from fapo.data.jsonl import write_jsonl
from fapo.inference.client import ChatClient
from fapo.inference.usage import Usage, UsageMeter, find_usage, usage_of
from fapo.judge.coalesce import BatchingJudge
from fapo.judge.deduplicate import DeduplicatingJudge
from fapo.judge.from_config import make_judge
from fapo.judge.oracle import oracle
from fapo.types import Completion, Problem, Rollout
from tests.support.chat_server import Reply, chat_server
from tests.support.command_line import fapo


def reply(usage: Any, text: str = "\\boxed{-1}") -> Reply:
    """Return an answer with this usage."""
    body = {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}], "usage": usage}
    return Reply(body=json.dumps(body).encode())


USED = {"prompt_tokens": 100, "completion_tokens": 7, "prompt_tokens_details": {"cached_tokens": 60}}
SHAPES = [
    (USED, (7, 100, 60)),
    ({"prompt_tokens": 100, "completion_tokens": 7}, (7, 100, 0)),
    ({"prompt_tokens": 100, "completion_tokens": 7, "prompt_tokens_details": None}, (7, 100, 0)),
    ({"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 9}}, (1, 5, 5)),
    ({"prompt_tokens": "5", "completion_tokens": -3, "prompt_tokens_details": [1]}, (0, 0, 0)),
    ({"prompt_tokens": 2**63, "completion_tokens": 2**63}, (0, 0, 0)),
    (None, (0, 0, 0)),
    ("many", (0, 0, 0)),
]


@pytest.mark.parametrize(("usage", "expected"), SHAPES)
def test_usage_of_a_server_is_read_with_care(usage: Any, expected: tuple[int, int, int]) -> None:
    async def ask(url: str) -> Completion:
        async with aclosing(ChatClient(url, "m")) as client:
            return (await client([[{"role": "user", "content": "?"}]]))[0]

    with chat_server(reply(usage)) as server:
        answer = asyncio.run(ask(server.url))
    assert (answer.num_tokens, answer.prompt_tokens, answer.cached_tokens) == expected


def test_sums_and_cost_by_hand() -> None:
    answers = [
        Completion("a", 10, prompt_tokens=100, cached_tokens=40),
        Completion("b", 20, prompt_tokens=200),
        Completion("c", 99, from_cache=True),
        Completion(error="HTTP 500"),
    ]
    total = usage_of(answers)
    assert total == Usage(requests=2, prompt_tokens=300, cached_tokens=40, completion_tokens=30, from_cache=1)
    assert total.cost((2.0, 0.5, 10.0)) == pytest.approx((260 * 2.0 + 40 * 0.5 + 30 * 10.0) / 1e6)
    shown = "2 requests, 300 prompt tokens (40 of them cached), 30 completion tokens; 1 responses from the cache"
    assert total.text() == shown
    assert total.text((2.0, 0.5, 10.0)).endswith("; cost 0.00084")
    assert total.as_json()["cost"] is None
    assert not Usage() and Usage(from_cache=1)


TOKENS = st.integers(0, 10**6)
COUNTS = st.builds(lambda new, cached, written: Usage(1, new + cached, cached, written), TOKENS, TOKENS, TOKENS)


@given(st.lists(COUNTS, max_size=5), st.tuples(*[st.floats(0, 100)] * 3))
def test_the_cost_of_a_sum_is_the_sum_of_the_costs(parts: list[Usage], prices: tuple[float, float, float]) -> None:
    assert sum(parts, Usage()).cost(prices) == pytest.approx(sum(part.cost(prices) for part in parts))


def test_what_was_taken_is_not_taken_again() -> None:
    meter = UsageMeter()
    meter.add([Completion("a", 3)])
    assert meter.take() == Usage(1, completion_tokens=3)
    meter.add([Completion("a", 4), Completion("a", 5)])
    assert (meter.take(), meter.take()) == (Usage(2, completion_tokens=9), Usage())
    assert meter.total == Usage(3, completion_tokens=12)
    assert copy.deepcopy(meter).total == Usage(), "a copy in another process has its own requests"


def test_a_judge_counts_votes_canaries_and_the_cache_through_all_its_wrappers(tmp_path: Path) -> None:
    """Two rollouts with two votes each, and two canaries with two votes each, which never come from the cache."""
    with chat_server(reply(USED)) as server:
        config = ServedJudge(
            urls=(server.url,),
            model="m",
            votes=2,
            temperature=0.5,
            cache=str(tmp_path / "c.sqlite"),
            canaries="miniature:critic-test",
            canary_rate=1.0,
        )
        judge = DeduplicatingJudge(BatchingJudge(make_judge(config)), max_kept=1)
        rollouts = [Rollout(Problem("p", "?", "1"), text) for text in ("a", "b")]
        meter = find_usage(judge)
        assert meter is not None
        asyncio.run(judge(rollouts))
        assert meter.take() == Usage(8, 800, 480, 56)
        asyncio.run(judge(rollouts[:1]))
        again = meter.take()
        assert len(server.requests) == 8 + again.requests
    assert (again.from_cache, again.requests) == (2, 2)
    assert find_usage(oracle(0.0, 0.0)) is None


# --- the commands -----------------------------------------------------------------------------------------------------

PRICES = ("1", "0.1", "10")
LINE = "1 requests, 100 prompt tokens (60 of them cached), 7 completion tokens; cost 0.000116"
CACHED = "0 requests, 0 prompt tokens, 0 completion tokens; 1 responses from the cache; cost 0"


def test_an_audit_prints_tokens_and_cost(tmp_path: Path, monkeypatch, capsys) -> None:
    write_jsonl(tmp_path / "in.jsonl", [{"problem": "1+1?", "reference": "2", "response": "\\boxed{2}"}])
    with chat_server(reply(USED)) as server:
        options = ["--judge", server.url, "--model", "m", "--out", tmp_path / "out.jsonl", "--quiet"]
        for line in (LINE, CACHED):
            assert fapo(monkeypatch, "judge", tmp_path / "in.jsonl", *options, "--prices", *PRICES, columns=200) == 0
            assert f"tokens of the judge: {line}" in capsys.readouterr().out
        assert fapo(monkeypatch, "judge", tmp_path / "in.jsonl", *options, columns=200) == 0
        assert "cost" not in capsys.readouterr().out
        assert fapo(monkeypatch, "judge", tmp_path / "in.jsonl", *options, "--prices", "1", "-1", "2") == 2
        assert "prices" in capsys.readouterr().err


def test_a_benchmark_has_tokens_and_cost(tmp_path: Path, monkeypatch, capsys) -> None:
    row = {"id": "a", "problem": "1+1?", "steps": ["2"], "label": -1, "final_answer_correct": True}
    write_jsonl(tmp_path / "data.jsonl", [row])
    monkeypatch.chdir(tmp_path)  # the cache lies there
    with chat_server(reply(USED)) as server:
        call = ["flawed-positive", "--data", tmp_path / "data.jsonl", "--judge", server.url, "--model", "m"]
        assert fapo(monkeypatch, "bench", *call, "--prices", *PRICES, columns=200) == 0
        assert f"tokens of the judge: {LINE}" in " ".join(capsys.readouterr().out.split()), "the caption is wrapped"
        assert fapo(monkeypatch, "bench", *call, "--json", "--no-cache", "--prices", *PRICES) == 0
    sums = {"requests": 1, "prompt_tokens": 100, "cached_tokens": 60, "completion_tokens": 7, "from_cache": 0}
    assert json.loads(capsys.readouterr().out)["usage"] == {**sums, "cost": pytest.approx(0.000116)}


def test_an_evaluation_has_tokens_and_cost_of_each_model(tmp_path: Path, monkeypatch, capsys) -> None:
    write_jsonl(tmp_path / "in.jsonl", [{"problem": "1+1?", "reference": "2"}])

    def answer(body: dict[str, Any], _: int) -> Reply:
        return reply(USED, "\\boxed{2}" if body["model"] == "p" else "\\boxed{-1}")

    with chat_server(answer) as server:
        models = [("policy", "p"), ("judge", "j"), ("gold-judge", "g")]
        named = [part for option, name in models for part in (f"--{option}", server.url, f"--{option}-model", name)]
        call = [tmp_path / "in.jsonl", *named, "--out", tmp_path / "out.jsonl", "--quiet", "--judge-prices", *PRICES]
        assert fapo(monkeypatch, "eval", *call, columns=200) == 0
        said = capsys.readouterr().err
        assert f"tokens of the judge: {LINE}" in said
        assert f"tokens of the policy: {LINE.partition(';')[0]}\n" in said and "tokens of the gold judge: 1 req" in said
        used = json.loads((tmp_path / "out.json").read_text())["usage"]
        assert {name: (u["requests"], u["from_cache"], u["cost"]) for name, u in used.items()} == {
            "policy": (1, 0, None),
            "judge": (1, 0, pytest.approx(0.000116)),
            "gold_judge": (1, 0, None),
        }
        assert fapo(monkeypatch, "eval", *call) == 0
    used = json.loads((tmp_path / "out.json").read_text())["usage"]
    assert [(u["requests"], u["from_cache"]) for u in used.values()] == [(0, 1)] * 3
