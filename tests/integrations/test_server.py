"""The reward service over HTTP; the judge is a function or a scripted server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

import fapo.inference.response_cache
from fapo.config.schema import FapoReward, OutcomeReward
from fapo.errors import ConfigError
from fapo.integrations.server.app import MAX_BODY, MAX_WAITING, make_app
from fapo.integrations.server.messages import MAX_ROLLOUTS
from fapo.integrations.server.settings import ServeSettings, served_scorer
from fapo.judge.deduplicate import DeduplicatingJudge
from fapo.rewards.checkers import make_checker
from fapo.rewards.scorer import PolicyScorer
from fapo.types import Given, Judge, Problem, Rollout, Verdict
from tests.support.chat_server import Reply, chat_server
from tests.support.paths import SOURCE

RIGHT = "1+1=2\n\nSo \\boxed{2}."
WRONG = "1+1=3\n\nSo \\boxed{3}."
ROW = {"problem": "What is 1+1?", "reference": "2", "response": RIGHT}
SLIME = {"prompt": "What is 1+1?", "label": "2", "response": RIGHT}
VERDICTS = {
    "sound": Verdict.from_step(None, "all is well"),
    "flawed": Verdict.from_step(1, "step 1 is wrong"),
    "silent": Verdict("unparsable", reason="no \\boxed{}"),
    "down": Verdict("failed", reason="HTTP 500"),
}


async def by_problem(rollouts: Sequence[Rollout]) -> list[Verdict]:
    """Return the verdict that the first word of the problem names; "sound" for other problems."""
    return [VERDICTS.get(rollout.problem.text.split()[0], VERDICTS["sound"]) for rollout in rollouts]


def app(judge: Judge | None = by_problem, token: str = "", **reward: Any) -> FastAPI:
    return make_app(PolicyScorer(FapoReward(**reward), judge, max_failure_rate=1.0), token)


def ask(service: FastAPI, path: str, body: Any = None, **options: Any) -> httpx.Response:
    async def send(client: httpx.AsyncClient) -> httpx.Response:
        if body is None and "content" not in options:
            return await client.get(path, **options)
        return await client.post(path, **({} if body is None else {"json": body}), **options)

    return with_client(service, send)


def with_client(service: FastAPI, use: Callable[[httpx.AsyncClient], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        transport = httpx.ASGITransport(service, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=600) as client:
            return await use(client)

    return asyncio.run(run())


def test_rewards_come_in_order_with_all_that_was_found_out() -> None:
    rows = [
        ROW | {"problem": "sound", "id": "a"},
        ROW | {"problem": "flawed", "id": "b"},
        ROW | {"problem": "flawed", "id": "c", "response": WRONG},
        ROW | {"problem": "silent", "id": "d"},
        ROW | {"problem": "down", "id": "e"},
    ]
    answer = ask(app(penalty=0.5), "/v1/rewards", rows)
    assert answer.status_code == 200, answer.text
    got = answer.json()
    assert [row["id"] for row in got] == ["a", "b", "c", "d", "e"]
    assert [row["reward"] for row in got] == [1.0, 0.5, -1.0, None, None]
    assert [row["correct"] for row in got] == [True, True, False, True, True]
    assert [row["status"] for row in got] == ["ok", "ok", "skipped", "unparsable", "failed"]
    assert [row["flawed"] for row in got] == [False, True, None, None, None]
    assert [row["error_step"] for row in got] == [None, 1, None, None, None]
    assert got[1]["critique"] == "step 1 is wrong"
    assert got[1]["parts"] == {"outcome": 1.0, "flaw": -0.5, "overlong": 0.0}
    assert got[3]["reason"] == "no \\boxed{}"


@pytest.mark.parametrize(
    ("row", "reward"),
    [
        ({}, 1.0),
        ({"label": 2}, 1.0),
        ({"label": "1+1=2\n#### 2"}, 1.0),
        ({"label": 3}, -1.0),
        ({"label": 1e-05, "response": r"\boxed{10^{-5}}"}, 1.0),
        ({"label": 1e16, "response": r"\boxed{10^{16}}"}, 1.0),
        ({"response": RIGHT + "<|im_end|>"}, 1.0),
        ({"prompt": [{"role": "system", "content": "Think."}, {"role": "user", "content": "flawed"}]}, 0.0),
        (
            {"prompt": "<|im_start|>system\nx<|im_end|>\n<|im_start|>user\nflawed<|im_end|>\n<|im_start|>assistant\n"},
            0.0,
        ),
    ],
)
def test_slime_gets_a_number(row: dict[str, Any], reward: float) -> None:
    answer = ask(app(), "/slime", SLIME | row)
    assert (answer.status_code, answer.text) == (200, str(reward))


@pytest.mark.parametrize("problem", ["silent", "down"])
def test_where_a_number_is_needed_no_verdict_is_an_error(problem: str) -> None:
    answer = ask(app(), "/slime", SLIME | {"prompt": problem})
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert VERDICTS[problem].reason in answer.json()["error"]
    batch = {"query": ["sound" + RIGHT, problem + RIGHT], "prompts": ["sound", problem], "labels": ["2", "2"]}
    assert ask(app(), "/openrlhf", batch).status_code == 503
    assert ask(app(on_unscored="correctness_only"), "/slime", SLIME | {"prompt": problem}).text == "1.0"


def test_thinking_is_left_out_and_a_tool_is_judged_with_the_rest() -> None:
    seen: list[Rollout] = []

    async def judge(rollouts: Sequence[Rollout]) -> list[Verdict]:
        seen.extend(rollouts)
        return await by_problem(rollouts)

    talk = [{"role": "assistant", "content": "Ask."}, {"role": "tool", "content": "2"}]
    last = {"role": "assistant", "content": f"<think>3?</think>{RIGHT}"}
    rows = [ROW | {"response": [*talk, last]}, ROW | {"response": "<think>\\boxed{2}"}, ROW | {"response": [talk[1]]}]
    answer = ask(app(judge), "/v1/rewards", rows[:2])
    assert [row["reward"] for row in answer.json()] == [1.0, -1.0]
    assert [(rollout.response, rollout.earlier_turns) for rollout in seen] == [(RIGHT, ("Ask.", Given("2")))]
    refused = ask(app(judge), "/v1/rewards", rows[2:])
    assert refused.status_code == 400
    assert "a conversation with an assistant's turn" in refused.text


CHAT = "<|im_start|>user\nsound<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("prompt", "response", "reward"),
    [
        (CHAT + "<think>\n", "Maybe \\boxed{2}.", -1.0),  # cut off inside the thinking
        (CHAT + "<think>\n", "Maybe \\boxed{2}.<|im_end|>", 1.0),  # ended by the policy, which closed no thinking
        (CHAT + "<think>\n", f"3?</think>{RIGHT}", 1.0),
        (CHAT + "<think>\n\n</think>\n\n", RIGHT, 1.0),
        (CHAT, RIGHT, 1.0),
    ],
)
def test_thinking_that_the_prompt_opened_and_nothing_closed_is_no_solution(
    prompt: str, response: str, reward: float
) -> None:
    row = {"problem": prompt, "reference": "2", "response": response}
    assert [row["reward"] for row in ask(app(), "/v1/rewards", [row]).json()] == [reward]
    assert ask(app(), "/slime", {"prompt": prompt, "label": "2", "response": response}).json() == reward
    batch = {"query": [prompt + response], "prompts": [prompt], "labels": ["2"]}
    assert ask(app(), "/openrlhf", batch).json()["rewards"] == [reward]


def test_openrlhf_gets_rewards_scores_and_rates() -> None:
    prompts = ["sound", "flawed", "flawed", "silent"]
    responses = [RIGHT, RIGHT, WRONG, RIGHT]
    query = [f"<s>{prompt}{response}</s>" for prompt, response in zip(prompts, responses, strict=True)]
    batch = {"query": query, "prompts": prompts, "labels": ["2"] * 4}
    answer = ask(app(on_unscored="correctness_only"), "/openrlhf", batch)
    assert answer.json() == {
        "rewards": [1.0, 0.0, -1.0, 1.0],
        "scores": [1.0, 1.0, 0.0, 1.0],
        "extra_logs": {"correct": 0.75, "flawed_positive": 0.25, "no_verdict": 0.25},
    }


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/v1/rewards", [], "at least 1 item"),
        ("/v1/rewards", [ROW] * (MAX_ROLLOUTS + 1), "at most 4096 items"),
        ("/v1/rewards", ROW, "valid list"),
        ("/v1/rewards", [{"problem": "p", "response": "r"}], "body.0.reference: Field required"),
        ("/v1/rewards", [ROW | {"answer_key": "2"}], "body.0.answer_key: Extra inputs are not permitted"),
        ("/v1/rewards", [ROW | {"num_tokens": -1}], "greater than or equal to 0"),
        ("/slime", SLIME | {"label": None}, "body.label"),
        ("/slime", SLIME | {"label": True}, "body.label"),
        ("/slime", {}, "body.prompt: Field required (and 2 more)"),
        (
            "/openrlhf",
            {"query": ["a"], "prompts": [1], "labels": ["2"]},
            "body.prompts.0: Input should be a valid string",
        ),
    ],
)
def test_a_request_of_the_wrong_form_is_refused_with_its_place(path: str, body: Any, message: str) -> None:
    answer = ask(app(), path, body)
    assert answer.status_code == 422
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/v1/rewards", [ROW | {"problem": []}], "no turn of a user"),
        ("/v1/rewards", [ROW | {"reference": " "}], "no final answer"),
        ("/openrlhf", {"query": ["ab"], "prompts": ["a", "b"], "labels": ["2"]}, "same length"),
        ("/openrlhf", {"query": ["x"], "prompts": ["a"], "labels": ["2"]}, "does not start with its prompt"),
    ],
)
def test_a_request_that_cannot_be_meant_is_refused(path: str, body: Any, message: str) -> None:
    answer = ask(app(), path, body)
    assert answer.status_code == 400
    assert message in answer.json()["error"]


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[" * 100_000, b'"\\ud800"', b""])
def test_no_body_is_a_fault_of_the_server(content: bytes) -> None:
    answer = ask(app(), "/v1/rewards", content=content, headers={"content-type": "application/json"})
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]


def test_texts_with_lone_surrogates_are_refused() -> None:
    content = json.dumps([ROW | {"response": "\ud800"}]).encode()
    assert ask(app(), "/v1/rewards", content=content).status_code == 422


def test_a_number_that_is_not_finite_is_no_label() -> None:
    content = json.dumps(SLIME | {"label": float("nan")}).encode()
    answer = ask(app(), "/slime", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert "body.label" in answer.json()["error"]


def test_a_body_that_is_too_large_is_refused() -> None:
    answer = ask(app(), "/v1/rewards", content=b"x", headers={"content-length": str(MAX_BODY + 1)})
    assert answer.status_code == 413

    async def endless() -> Any:  # has no content-length
        for _ in range(MAX_BODY // 2**20 + 1):
            yield b" " * 2**20

    assert ask(app(), "/v1/rewards", content=endless()).status_code == 413


def test_the_overlong_penalty_needs_lengths() -> None:
    service = make_app(PolicyScorer(FapoReward(overlong_buffer=10), by_problem, max_tokens=20))
    assert ask(service, "/v1/rewards", [ROW | {"num_tokens": 15}]).json()[0]["reward"] == 0.5
    for path, body in (("/v1/rewards", [ROW, ROW | {"num_tokens": 1}]), ("/slime", SLIME)):
        answer = ask(service, path, body)
        assert answer.status_code == 400
        assert "overlong" in answer.json()["error"]


def test_a_token_opens_all_routes() -> None:
    service = app(token="secret")
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Bearer "}):
        answer = ask(service, "/v1/rewards", [ROW], headers=headers)
        assert answer.status_code == 401
        assert "Bearer" in answer.json()["error"] and "secret" not in answer.text
    assert ask(service, "/metrics").status_code == 401
    assert ask(service, "/health").status_code == 200
    assert ask(service, "/v1/rewards", [ROW], headers={"authorization": "Bearer secret"}).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LocalHost:8750", 200),
        ("127.0.0.1:8750", 200),
        ("127.0.0.2", 200),
        ("[::1]:8750", 200),
        ("attacker.example:8750", 403),
        ("127.0.0.1.attacker.example", 403),
        ("a_b.attacker.example", 403),
        ("192.168.0.7:8750", 403),
        ("", 403),
    ],
)
def test_without_a_token_only_requests_to_this_machine_are_answered(host: str, status: int) -> None:
    for path, body in (("/slime", SLIME), ("/health", None)):
        answer = ask(app(), path, body, headers={"host": host})
        assert answer.status_code == status, answer.text
        assert status == 200 or "FAPO_SERVER_TOKEN" in answer.json()["error"]
    assert ask(app(token="secret"), "/slime", SLIME, headers={"host": host}).status_code == 401
    with_token = {"host": host, "authorization": "Bearer secret"}
    assert ask(app(token="secret"), "/slime", SLIME, headers=with_token).status_code == 200


def test_equal_rollouts_are_judged_once() -> None:
    asked: list[int] = []

    async def counting(rollouts: Sequence[Rollout]) -> list[Verdict]:
        asked.append(len(rollouts))
        await asyncio.sleep(0.2)
        return await by_problem(rollouts)

    service = app(DeduplicatingJudge(counting))

    async def use(client: httpx.AsyncClient) -> list[httpx.Response]:
        return await asyncio.gather(*(client.post("/v1/rewards", json=[ROW, ROW]) for _ in range(8)))

    answers = with_client(service, use)
    assert {row["reward"] for answer in answers for row in answer.json()} == {1.0}
    assert asked == [1]


def test_a_slow_judge_does_not_block_other_requests() -> None:
    asked, release = asyncio.Event(), asyncio.Event()

    async def slow(rollouts: Sequence[Rollout]) -> list[Verdict]:
        if rollouts[0].problem.text == "slow":
            asked.set()
            await release.wait()
        return await by_problem(rollouts)

    async def use(client: httpx.AsyncClient) -> list[float]:
        waiting = asyncio.create_task(client.post("/slime", json=SLIME | {"prompt": "slow"}))
        await asked.wait()
        others = [await client.post("/slime", json=SLIME) for _ in range(3)]
        assert not waiting.done()
        text = (await client.get("/metrics")).text
        assert "fapo_rollouts_waiting 1.0" in text
        release.set()
        return [answer.json() for answer in (*others, await waiting)]

    assert with_client(app(slow), use) == [1.0] * 4


def test_too_many_waiting_rollouts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fapo.integrations.server.app.MAX_WAITING", 3)
    assert MAX_WAITING > 3
    assert ask(app(), "/v1/rewards", [ROW] * 3).status_code == 200
    answer = ask(app(), "/v1/rewards", [ROW] * 4)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


def test_a_judge_that_is_down_gives_status_503() -> None:
    service = make_app(PolicyScorer(FapoReward(), by_problem, max_failure_rate=0.5))
    answer = ask(service, "/v1/rewards", [ROW | {"problem": "down"}] * 8)
    assert answer.status_code == 503
    assert "the judge is down" in answer.json()["error"] and "HTTP 500" in answer.json()["error"]


def test_a_cache_that_cannot_be_used_is_no_mistake_of_the_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fapo.inference.response_cache, "LOCK_TIMEOUT", 0.1)
    with chat_server(Reply("\\boxed{-1}")) as server:
        settings = ServeSettings(judge=(server.url,), model="m", cache=tmp_path / "cache.sqlite")
        service = make_app(served_scorer(settings))
        with contextlib.closing(sqlite3.connect(tmp_path / "cache.sqlite", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            answer = ask(service, "/v1/rewards", [ROW])
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert "database is locked" in answer.json()["error"]
        assert ask(service, "/v1/rewards", [ROW]).json()[0]["reward"] == 1


def test_a_fault_of_ours_shows_nothing_to_the_client() -> None:
    async def broken(rollouts: Sequence[Rollout]) -> list[Verdict]:
        raise RuntimeError("a detail of the inside")

    answer = ask(app(broken), "/v1/rewards", [ROW])
    assert answer.status_code == 500
    assert "detail" not in answer.text and "Traceback" not in answer.text


def test_metrics_count_rollouts_and_requests() -> None:
    service = app()

    async def use(client: httpx.AsyncClient) -> str:
        await client.post("/v1/rewards", json=[ROW, ROW | {"problem": "flawed"}, ROW | {"problem": "silent"}])
        await client.post("/slime", json=SLIME | {"label": "3"})
        await client.post("/slime", json={})
        await client.get("/nowhere")
        return (await client.get("/metrics")).text

    text = with_client(service, use)
    for name, value in {
        'fapo_rollouts_total{rollout_class="fully_correct"}': 1,
        'fapo_rollouts_total{rollout_class="flawed"}': 1,
        'fapo_rollouts_total{rollout_class="unscored"}': 1,
        'fapo_rollouts_total{rollout_class="wrong"}': 1,
        'fapo_rewards_total{result="none"}': 1,
        'fapo_requests_total{door="/v1/rewards",status="200"}': 1,
        'fapo_requests_total{door="/slime",status="422"}': 1,
        'fapo_requests_total{door="other",status="404"}': 1,
        "fapo_judge_seconds_count": 1,
        "fapo_rollouts_waiting": 0,
    }.items():
        assert f"{name} {float(value)}\n" in text


def test_a_reward_without_a_judge_can_be_served() -> None:
    service = make_app(PolicyScorer(OutcomeReward(), None))
    assert [ask(service, "/slime", SLIME | {"label": label}).json() for label in (2, 3)] == [1.0, -1.0]
    assert ask(service, "/health").json()["reward"] == "outcome"


def test_the_page_of_the_routes_is_there() -> None:
    schema = ask(app(), "/openapi.json").json()
    assert {"/v1/rewards", "/slime", "/openrlhf", "/health", "/metrics"} == set(schema["paths"])
    assert ask(app(), "/docs").status_code == 200


def test_a_reward_that_compares_a_group_cannot_be_served(tmp_path: Path) -> None:
    text = (SOURCE / "fapo/data/miniature/configs/policy.toml").read_text(encoding="utf-8")
    file = tmp_path / "run.toml"
    file.write_text(text.replace('kind = "fapo"\npenalty = 1.0', 'kind = "decoupled"'), encoding="utf-8")
    with pytest.raises(ConfigError, match=r'run.toml: reward.kind "decoupled" compares the rollouts of a group'):
        served_scorer(ServeSettings(config=file))


@pytest.mark.parametrize(
    ("settings", "name"),
    [("correct = true", "judge.audit.correct"), ('min_j = 0.3\non_low_j = "switch"', 'judge.audit.on_low_j "switch"')],
)
def test_a_reward_that_depends_on_an_audit_cannot_be_served(settings: str, name: str, tmp_path: Path) -> None:
    text = (SOURCE / "fapo/data/miniature/configs/policy.toml").read_text(encoding="utf-8")
    file = tmp_path / "run.toml"
    file.write_text(f'{text}[judge.audit]\n{settings}\njudge = {{ kind = "oracle" }}\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"run.toml: {name} needs an audit, which the service does not make"):
        served_scorer(ServeSettings(config=file))


async def checks_length(response: str, reference: str, problem: Problem) -> Any:
    """Return whether the response has the length of the reference; None for a response of one character."""
    return None if len(response) == 1 else len(response) == len(reference)


def test_a_checker_of_the_user_decides_what_is_judged() -> None:
    check = make_checker(checks_length)
    service = make_app(PolicyScorer(FapoReward(), by_problem, max_failure_rate=1.0, check=check))
    rows = [ROW | {"reference": "four", "response": response} for response in ("same", "other", "?")]
    got = ask(service, "/v1/rewards", rows).json()
    assert [(row["reward"], row["correct"], row["status"]) for row in got] == [
        (1.0, True, "ok"),
        (-1.0, False, "skipped"),
        (None, False, "skipped"),
    ]
    assert got[2]["reason"] == "the checker returned NoneType, must be True or False"
    slime = ask(service, "/slime", {"prompt": "?", "label": "four", "response": "?"})
    assert (slime.status_code, slime.json()["error"]) == (
        503,
        "the answer could not be checked: the checker returned NoneType, must be True or False",
    )


def test_a_checker_that_is_down_is_unavailable() -> None:
    service = make_app(PolicyScorer(FapoReward(), by_problem, check=make_checker(checks_length)))
    answer = ask(service, "/v1/rewards", [ROW | {"response": "?", "id": str(i)} for i in range(8)])
    assert answer.status_code == 503 and "the answer checker is down" in answer.json()["error"]
