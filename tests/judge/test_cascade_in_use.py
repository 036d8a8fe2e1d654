"""A cascade of served judges under both engines: the requests that each server gets, verdicts, tokens and refusals."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fapo.config import Config, from_dict, to_dict
from fapo.data.jsonl import read_jsonl
from fapo.errors import ConfigError
from fapo.training.preview import preview
from fapo.trl.train import train
from fapo.verl.overrides import overrides
from fapo.verl.payload import decode
from fapo.verl.reward import compute_score
from fapo.verl.train import with_absolute_paths
from tests.support.chat_server import ChatServer, Reply, chat_server
from tests.support.logprobs import plain

pytestmark = pytest.mark.slow


def unsure(body: dict[str, Any], index: int) -> Reply:
    """Flag every second critique, so that two votes do not agree."""
    return Reply("\\boxed{0}" if index % 2 else "\\boxed{-1}")


@pytest.fixture
def servers() -> Iterator[tuple[ChatServer, ChatServer]]:
    with chat_server(unsure) as cheap, chat_server(Reply("\\boxed{-1}")) as strong:
        yield cheap, strong


def settings(folder: Path, policy: Path, cheap_url: str, strong_url: str, **judge: Any) -> Config:
    served = {"kind": "served", "model": "m", "template": "compact", "concurrency": 4}
    return from_dict(
        {
            "name": "run",
            "task": "policy",
            "output": str(folder),
            "model": {"path": str(policy)},
            "data": {"train": "miniature:train", "limit": 64, "validation": {"easy": "miniature:validation"}},
            "rollout": {"max_tokens": 24, "num_prompts": 8, "group_size": 4},
            "reward": {"kind": "fapo"},
            "judge": {
                "kind": "cascade",
                "thresholds": [0.3, 0.7],
                "cheap": {**served, "urls": [cheap_url], "votes": 2, "temperature": 0.6},
                "strong": {**served, "urls": [strong_url]},
                **judge,
            },
            "optim": {"steps": 2, "learning_rate": 1e-3},
            "validation": {"every": 2, "limit": 8},
        }
    )


def test_training_with_trl_asks_each_server_and_counts_both(
    servers: tuple[ChatServer, ChatServer], tiny_policy: Path, tmp_path: Path
) -> None:
    cheap, strong = servers
    folder = train(settings(tmp_path, tiny_policy, cheap.url, strong.url))
    rows = [row for row in read_jsonl(folder / "rollouts.jsonl") if row["correct"]]
    assert rows and {row["given_by"] for row in rows} <= {"cheap", "strong"}
    for row in rows:
        sure = row["flag_rate"] in (0.0, 1.0) if row["given_by"] == "cheap" else not row["flawed"]
        assert sure and row["reward"] == (0.0 if row["flawed"] else 1.0)
    assert cheap.requests and len(cheap.requests) % 2 == 0
    metrics = list(read_jsonl(folder / "metrics.jsonl"))
    counted = sum(value for row in metrics for key, value in row.items() if key.endswith("judge/requests"))
    assert counted == len(cheap.requests) + len(strong.requests)
    rates = [row["judge/strong_rate"] for row in metrics if "judge/strong_rate" in row]
    assert rates and all(0 <= rate <= 1 for rate in rates)
    assert json.loads((folder / "prompts.json").read_text(encoding="utf-8")).keys() >= {
        "judge.cheap.template",
        "judge.strong.template",
    }


def test_a_worker_of_verl_passes_on_the_unsure_ones(
    servers: tuple[ChatServer, ChatServer], tiny_policy: Path, tmp_path: Path
) -> None:
    cheap, strong = servers
    config = settings(tmp_path, tiny_policy, cheap.url, strong.url)
    assert overrides(with_absolute_paths(config))
    file = tmp_path / "config.json"
    file.write_text(json.dumps(to_dict(config)), encoding="utf-8")
    row = "d", "1+1=2\n\\boxed{2}", "2", {"problem": "1+1?"}
    score = asyncio.run(compute_score(*row, config=str(file), num_workers=2))
    payload = decode(score["fapo"], score["score"], 8, 64)
    verdict = payload.scored.verdict
    assert verdict and (verdict.given_by, verdict.flawed, verdict.all_tokens) == ("strong", False, 3)
    assert (len(cheap.requests), len(strong.requests)) == (2, 1)
    assert (payload.usage.requests, payload.usage.completion_tokens) == (3, 3)
    with pytest.raises(ConfigError, match="verl serves a single judge"):
        asyncio.run(compute_score(*row, config=str(file), reward_router_address="127.0.0.1:9"))


PROBABLE = plain("\\boxed{-1}", ("-", {"-": 0.75, "0": 0.25}), ("1", {"1": 1.0}), ("}", {"}": 1.0}))
"""Critique that clears a solution with a probability of a flaw of 1/4."""


@pytest.mark.parametrize(("thresholds", "by"), [((0.3, 0.7), "cheap"), ((0.2, 0.7), "strong")])
def test_a_worker_of_verl_decides_by_the_probability_of_one_critique(
    thresholds: tuple[float, float], by: str, tiny_policy: Path, tmp_path: Path
) -> None:
    with chat_server(PROBABLE) as cheap, chat_server(Reply("\\boxed{0}")) as strong:
        table = to_dict(settings(tmp_path, tiny_policy, cheap.url, strong.url))
        table["judge"]["thresholds"] = list(thresholds)
        table["judge"]["cheap"] |= {"votes": 1, "temperature": 0.0, "logprobs": True}
        file = tmp_path / "config.json"
        file.write_text(json.dumps(to_dict(from_dict(table))), encoding="utf-8")
        row = "d", "1+1=2\n\\boxed{2}", "2", {"problem": "1+1?"}
        score = asyncio.run(compute_score(*row, config=str(file), num_workers=2))
    verdict = decode(score["fapo"], score["score"], 8, 64).scored.verdict
    assert verdict and (verdict.given_by, verdict.flawed) == (by, by == "strong")
    assert verdict.flag_probability == (pytest.approx(0.25, abs=1e-5) if by == "cheap" else None)


def test_rows_of_a_run_with_trl_have_the_probability(tiny_policy: Path, tmp_path: Path) -> None:
    with chat_server(PROBABLE) as cheap, chat_server(Reply("\\boxed{0}")) as strong:
        config = settings(tmp_path, tiny_policy, cheap.url, strong.url)
        table = to_dict(config)
        table["judge"]["cheap"] |= {"votes": 1, "temperature": 0.0, "logprobs": True}
        folder = train(from_dict(table))
    rows = [row for row in read_jsonl(folder / "rollouts.jsonl") if row["correct"]]
    assert rows and not strong.requests
    assert all(row["given_by"] == "cheap" and row["flag_probability"] == pytest.approx(0.25, abs=1e-5) for row in rows)


def test_the_page_of_a_run_names_both_judges(
    servers: tuple[ChatServer, ChatServer], tiny_policy: Path, tmp_path: Path
) -> None:
    config = settings(tmp_path, tiny_policy, servers[0].url, "http://127.0.0.1:9/v1")
    page = " ".join(preview(config, lambda key: "run.toml", "trl").split())
    assert f"m at {servers[0].url}, prompt compact; the correct rollouts, at most 32 a step, 2 critiques each" in page
    assert "for a score of a flaw between 0.3 and 0.7: m at http://127.0.0.1:9/v1" in page
    assert "judge.strong.urls" in page


LOCAL = {"kind": "local", "model": "miniature:genrm", "template": "compact"}
REFUSED = {
    "a local judge": ({"cheap": LOCAL}, r'judge.cheap.kind "local" is for --engine trl: verl serves a single judge'),
    "a process reward model without a server": (
        {"strong": {"kind": "prm", "model": "miniature:genrm"}},
        r"judge.strong.urls is missing: verl's reward workers load no process reward model",
    ),
    "overlap": (
        {"strong": {"kind": "served", "urls": ["http://x/v1"], "model": "m", "overlap": False}},
        r"judge.strong.overlap is for --engine trl",
    ),
}


@pytest.mark.parametrize(("judge", "message"), REFUSED.values(), ids=REFUSED)
def test_verl_refuses_what_its_workers_cannot_do(
    judge: dict[str, Any], message: str, tiny_policy: Path, tmp_path: Path
) -> None:
    config = settings(tmp_path, tiny_policy, "http://x/v1", "http://x/v1", **judge)
    with pytest.raises(ConfigError, match=message):
        overrides(with_absolute_paths(config))
