"""A judge behind a real server gives the same verdicts as in this process: `transformers serve` with a GenRM.

The same checks on any other server, or on a router before several, that serves the folder of miniature:genrm:
FAPO_TEST_JUDGE_URL=http://127.0.0.1:8000/v1 FAPO_TEST_JUDGE_MODEL=NAME pytest tests/inference/test_serving.py
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import GenerationConfig

from fapo.config.reader import from_dict
from fapo.data.jsonl import read_jsonl
from fapo.data.miniature.sets import labelled
from fapo.inference.client import NO_LOGPROBS, ChatClient
from fapo.inference.models import model_folder
from fapo.judge.from_config import command_line_judge, make_judge
from fapo.judge.template import build_prompt, load_template
from fapo.types import Completion, Rollout, Verdict
from tests.support.model_server import ModelServer
from tests.support.transformers_server import model_server

pytest.importorskip("fastapi", reason="needs transformers[serving]")
pytest.importorskip("uvicorn", reason="needs transformers[serving]")
pytestmark = pytest.mark.server

GENRM = model_folder("miniature:genrm")
URL = os.environ.get("FAPO_TEST_JUDGE_URL")
MODEL = os.environ.get("FAPO_TEST_JUDGE_MODEL", GENRM) if URL else "genrm"
GREEDY: dict[str, Any] = {"template": "compact", "temperature": 0.0, "max_tokens": 80}
SLOW_MACHINE: dict[str, Any] = {"concurrency": 4, "timeout": 600.0}
"""Limits for slow machines: a server continues with requests that timed out, and would fall further behind."""
SOLUTIONS = [Rollout(row.problem, "\n\n".join(row.steps)) for row in labelled("miniature:critic-test", 36)]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the base URL of a server with the GenRM of the miniature."""
    if URL:
        yield URL
        return
    with model_server("genrm", tmp_path_factory.mktemp("server") / "log", cwd=Path(GENRM).parent) as server:
        yield server.url


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    """Return another server; the generation config of its model says do_sample."""
    if URL:
        pytest.skip("about transformers serve, and servers that are stopped")
    folder = tmp_path_factory.mktemp("second")
    shutil.copytree(GENRM, folder / "genrm")
    settings = GenerationConfig.from_pretrained(folder / "genrm")
    settings.do_sample = True
    settings.save_pretrained(folder / "genrm")
    with model_server("genrm", folder / "log", cwd=folder) as server:
        yield server


@pytest.fixture(scope="module")
def in_process() -> list[tuple[str, int | None]]:
    """Return the verdicts of the same model without a server."""
    found = judge(GENRM)
    assert {error_step is None for _, error_step in found} == {True, False}, "both kinds, or equality means little"
    assert [status for status, _ in found].count("ok") > len(found) / 2
    return found


def judge(*addresses: str) -> list[tuple[str, int | None]]:
    """Return the verdicts of the judge at some addresses, or of the one in a folder."""
    local = not addresses[0].startswith("http")
    config = command_line_judge(
        [f"local:{GENRM}"] if local else addresses, "" if local else MODEL, **GREEDY, **SLOW_MACHINE
    )
    verdicts: list[Verdict] = asyncio.run(make_judge(config)(SOLUTIONS))
    return [(verdict.status, verdict.error_step) for verdict in verdicts]


def ask(url: str, model: str, num: int, **sampling: Any) -> list[Completion]:
    """Return several answers to the same question."""
    row = SOLUTIONS[0]
    prompt = build_prompt(load_template("compact"), row.problem.text, row.problem.reference, row.response.split("\n\n"))
    return asyncio.run(
        ChatClient(url, model, max_tokens=40, retries=0, concurrency=4, timeout=600.0, **sampling)([prompt] * num)
    )


def test_served_verdicts_are_those_of_the_model_in_this_process(url: str, in_process) -> None:
    assert judge(url) == in_process


def test_training_gets_the_same_verdicts_from_a_server(url: str, tiny_policy: Path, tmp_path: Path) -> None:
    from fapo.trl.train import train

    def rollouts(name: str, **where: Any) -> list[tuple[Any, ...]]:
        table = {
            "name": name,
            "task": "policy",
            "output": str(tmp_path),
            "model": {"path": str(tiny_policy)},
            "data": {"train": "miniature:train", "limit": 64},
            "rollout": {"max_tokens": 24, "num_prompts": 8, "group_size": 4},
            "reward": {"kind": "fapo"},
            "judge": {**GREEDY, **where},
            "optim": {"steps": 2, "learning_rate": 1e-3, "warmup_steps": 0},
        }
        folder = train(from_dict(table))
        return [
            (row["response"], row["status"], row["error_step"], row["critique"], row["reward"])
            for row in read_jsonl(folder / "rollouts.jsonl")
        ]

    here = rollouts("here", kind="local", model=GENRM)
    assert rollouts("served", kind="served", urls=[url], model=MODEL, **SLOW_MACHINE) == here
    assert {status for _, status, *_ in here} >= {"ok", "skipped"}


@pytest.mark.skipif(URL is not None, reason="about transformers serve")
def test_transformers_serve_has_no_log_probabilities(url: str) -> None:
    (answer,) = ask(url, MODEL, 1, logprobs_after="\\boxed{")
    assert answer.error == NO_LOGPROBS and "\\boxed{" in answer.text


@pytest.mark.skipif(URL is not None, reason="about transformers serve")
def test_the_name_of_the_model_is_the_folder_as_it_was_given(url: str) -> None:
    (answer,) = ask(url, GENRM, 1)
    assert answer.error.startswith("HTTP 400")


def test_transformers_serve_samples_only_where_the_model_says_so(url: str, second: ModelServer) -> None:
    hot = {"temperature": 1.5, "top_p": 1.0}
    assert len({answer.text for answer in ask(url, MODEL, 6, **hot)}) == 1, "the temperature is not read"
    assert len({answer.text for answer in ask(second.url, MODEL, 6, **hot)}) > 1
    assert ask(second.url, MODEL, 1, temperature=0.0)[0].text == ask(url, MODEL, 1, temperature=0.0)[0].text


def test_one_of_two_replicas_may_die(url: str, second: ModelServer, in_process) -> None:
    before = second.num_answered()
    assert judge(url, second.url) == in_process
    answered = second.num_answered() - before
    assert len(SOLUTIONS) / 4 <= answered <= 3 * len(SOLUTIONS) / 4, "requests were spread over both"
    second.process.kill()
    second.process.wait()
    assert judge(url, second.url) == in_process
