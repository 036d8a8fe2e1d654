"""vLLM on the CPU serves process reward models to `fapo bench`; `make test-vllm` runs these tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer, Qwen2Config, Qwen2Model

from fapo.data.miniature.sets import labelled
from fapo.inference.models import model_folder
from fapo.inference.step_scores import PoolingClient
from fapo.inference.token_classifier import TokenClassifier
from fapo.judge.prm import StepTokenizer
from fapo.types import StepTokens
from tests.support.model_server import ModelServer
from tests.support.prm import SEPARATOR, step_tokenizer, train_prm
from tests.support.vllm_cpu import SERVER_MARKS, vllm_on_cpu
from tests.vllm_cpu.test_vllm import fapo

pytestmark = SERVER_MARKS
NUM = 24
SOLUTIONS = labelled("miniature:critic-test", NUM)
MARK = "<|end|>"
"""Separator of the model with the classes of Qwen2.5-Math-PRM."""


def served(folder: Path, log: Path, *options: str) -> AbstractContextManager[ModelServer]:
    """Serve the process reward model in a folder."""
    return vllm_on_cpu(str(folder), log, folder, "--served-model-name", "prm", "--runner", "pooling", *options)


def scores(server: ModelServer, asked: list[StepTokens], **settings: Any) -> list[list[float]]:
    answers = asyncio.run(PoolingClient(server.url, "prm", retries=0, **settings)(asked))
    assert not [answer.error for answer in answers if answer.error]
    return [json.loads(answer.text) for answer in answers]


@pytest.fixture(scope="module")
def prm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_prm(tmp_path_factory.mktemp("prm"))


@pytest.fixture(scope="module")
def server(prm: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModelServer]:
    with served(prm, tmp_path_factory.mktemp("log") / "log", "--convert", "classify") as server:
        yield server


def test_bench_gets_the_verdicts_of_the_model_in_this_process(server: ModelServer, prm: Path, tmp_path: Path) -> None:
    command = ["bench", "process", "--data", "miniature:critic-test", "--limit", str(NUM)]
    command += ["--separator", "\\n", "--json"]
    here = json.loads(fapo(*command, "--judge", f"prm:{prm}", "--out", tmp_path / "here.jsonl"))
    there = ["--judge", f"prm:{server.url}", "--model", "prm", "--tokenizer", prm, "--out", tmp_path / "there.jsonl"]
    found = json.loads(fapo(*command, *there))
    assert (found["pooled_f1"], found["num_failed"]) == (here["pooled_f1"], 0)
    rows = [
        [json.loads(line)["scores"] for line in (tmp_path / name).read_text().splitlines()]
        for name in ("here.jsonl", "there.jsonl")
    ]
    assert len(rows[0]) == NUM
    for one, other in zip(*rows, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_a_solution_beyond_the_context_is_a_failure(server: ModelServer) -> None:
    (answer,) = asyncio.run(PoolingClient(server.url, "prm")([StepTokens([7] * 600 + [20], [600])]))
    assert answer.error.startswith("HTTP 400")
    assert "given up" not in answer.error, "a retry would not help"


def test_a_server_that_answers_for_separators_only(prm: Path, tmp_path: Path) -> None:
    tokenize = step_tokenizer()
    (separator,) = tokenize.tokenizer(SEPARATOR)["input_ids"]
    asked = [tokenize(row.problem, row.steps) for row in SOLUTIONS]
    step = json.dumps({"tok_pooling_type": "STEP", "step_tag_id": separator})
    with served(prm, tmp_path / "log", "--convert", "classify", "--pooler-config", step) as server:
        found = scores(server, asked)
    local = [json.loads(answer.text) for answer in TokenClassifier.load(str(prm)).score(asked)]
    for one, other in zip(found, local, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_the_form_of_qwen_math_prm(tmp_path: Path) -> None:
    """vLLM has a class of its own for that model: its head has two layers, and it answers for separators only."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder("miniature:genrm"))
    tokenize = StepTokenizer(tokenizer, "miniature:genrm", MARK)
    (separator,) = tokenizer(MARK)["input_ids"]
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=512,
        architectures=["Qwen2ForProcessRewardModel"],
        dtype="float32",
    )
    body = Qwen2Model(config).eval()
    head = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 2))
    weights = {f"model.{name}": weight for name, weight in body.state_dict().items()}
    save_file(
        weights | {f"score.{name}": weight for name, weight in head.state_dict().items()},
        tmp_path / "model.safetensors",
        {"format": "pt"},
    )
    config.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    asked = [tokenize(row.problem, row.steps) for row in SOLUTIONS]
    step = json.dumps({"step_tag_id": separator})
    with served(tmp_path, tmp_path / "log", "--pooler-config", step) as server:
        found = scores(server, asked)
    with torch.no_grad():
        for one, other in zip(asked, found, strict=True):
            hidden = body(input_ids=torch.tensor([one.tokens])).last_hidden_state[0, list(one.ends)]
            assert other == pytest.approx(head(hidden).softmax(-1)[:, 1].tolist(), abs=1e-4)
