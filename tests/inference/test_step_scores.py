"""Scores of steps: from a model in this process, and from a server that answers as vLLM does, with the same result."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForTokenClassification

from fapo.data.miniature.sets import labelled
from fapo.errors import ConfigError
from fapo.inference.models import model_folder
from fapo.inference.step_scores import PoolingClient
from fapo.inference.token_classifier import TokenClassifier
from fapo.types import Completion, StepTokens
from tests.support.chat_server import Reply, chat_server
from tests.support.prm import pooling, step_tokenizer, vllm_answer

ASKED = StepTokens([7, 8, 20, 20, 9, 20], [2, 5])
"""Two steps that end with token 20; the first one also has it inside of its text."""
GOOD, BAD = [0.1, 0.9], [0.8, 0.2]


def scores(answers: Sequence[Completion]) -> list[list[float]]:
    assert not [answer.error for answer in answers if answer.error]
    return [json.loads(answer.text) for answer in answers]


def ask(reply: Any, **settings: Any) -> tuple[Completion, list[dict[str, Any]], list[str]]:
    with chat_server(reply) as server:
        client = PoolingClient(server.url, "prm", **{"retries": 0, **settings})
        (answer,) = asyncio.run(client([ASKED]))
        return answer, server.requests, server.paths


def test_the_request_has_the_tokens_and_goes_to_pooling() -> None:
    answer, requests, paths = ask(Reply(body=pooling([GOOD, GOOD, BAD, GOOD, GOOD, GOOD])))
    assert scores([answer]) == [[0.2, 0.9]]
    assert paths == ["/pooling"]
    expected = {"model": "prm", "input": [7, 8, 20, 20, 9, 20], "task": "token_classify", "use_activation": True}
    assert requests == [expected]


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"])
def test_an_address_may_end_in_v1(url: str) -> None:
    assert PoolingClient(url, "prm").urls == ["http://h:1"]


ROWS = {
    "one for each token": ([GOOD, GOOD, BAD, GOOD, GOOD, GOOD], [0.2, 0.9]),
    "one for each separator": ([BAD, GOOD, GOOD], [0.2, 0.9]),
    "one label": ([[0.3], [0.5], [0.7]], [0.3, 0.7]),
    "one label, plain numbers": ([0.3, 0.5, 0.7], [0.3, 0.7]),
    "half precision": ([[0.8, 0.1992], GOOD, [0.09961, 0.9]], [0.1992, 0.9]),
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_become_scores(name: str) -> None:
    rows, expected = ROWS[name]
    answer, _, _ = ask(Reply(body=pooling(rows)))
    assert scores([answer]) == [expected]


NO_SCORES = {
    "too few": ([GOOD, GOOD], "2 scores for 2 steps: expected one for each of the 6 tokens or of the 3 separators"),
    "none": ([], "0 scores for 2 steps"),
    "logits": ([[2.0, -1.0]] * 3, "no score of a step: expected one probability, or two with sum 1, not [2.0, -1.0]"),
    "embeddings": ([[0.1, 0.2, 0.7]] * 3, "no score of a step"),
    "no distribution": ([[0.5, 0.9]] * 3, "no score of a step"),
    "text": (["a", "b", "c"], "no score of a step"),
    "true": ([True, True, True], "no score of a step"),
    "null": ([[None, 0.5]] * 3, "no score of a step"),
    "base64": ("AAAA", "the answer is not one of vLLM's route /pooling (given up after 1 tries)"),
}


@pytest.mark.parametrize("name", NO_SCORES)
def test_rows_that_are_no_scores_are_a_failure(name: str) -> None:
    rows, message = NO_SCORES[name]
    answer, _, _ = ask(Reply(body=pooling(rows)))
    assert message in answer.error


def test_a_row_of_another_step_may_be_anything() -> None:
    answer, _, _ = ask(Reply(body=pooling([[9.0], [9.0], GOOD, [9.0], [9.0], BAD])))
    assert scores([answer]) == [[0.9, 0.2]]


NO_ANSWERS = {
    "NaN": (b'{"data": [{"data": [[NaN, 0.5], [0.5, 0.5], [0.5, 0.5]]}]}', "no score of a step"),
    "chat completion": (None, "the answer is not one of vLLM's route /pooling"),
    "no JSON": (b"<html>", "the answer is not JSON"),
    "a list": (b"[]", "the answer is not one of vLLM's route /pooling"),
    "empty data": (b'{"data": []}', "the answer is not one of vLLM's route /pooling"),
}


@pytest.mark.parametrize("name", NO_ANSWERS)
def test_other_answers_are_a_failure(name: str) -> None:
    body, message = NO_ANSWERS[name]
    answer, _, _ = ask(Reply(body=body))
    assert message in answer.error


def test_a_refusal_is_final_and_a_fault_of_the_server_is_not() -> None:
    refusal = Reply(status=400, body=b'{"error": {"message": "This model\'s maximum context length is 4 tokens."}}')
    answer, requests, _ = ask(refusal, retries=3)
    assert (answer.error, len(requests)) == ("HTTP 400: This model's maximum context length is 4 tokens.", 1)

    def busy_once(body: dict[str, Any], index: int) -> Reply:
        return Reply(body=pooling([GOOD] * 3)) if index else Reply(status=503, body=b"busy")

    answer, requests, _ = ask(busy_once, retries=3, backoff=0.01, cooldown=0.01)
    assert (scores([answer]), len(requests)) == ([[0.9, 0.9]], 2)


# --- a real model --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [False, True], ids=["rows of all tokens", "rows of separators"])
def test_a_served_model_has_the_scores_of_the_model_in_this_process(step: bool, miniature_prm: Path) -> None:
    model, tokenize = TokenClassifier.load(str(miniature_prm)), step_tokenizer()
    asked = [tokenize(row.problem, row.steps) for row in labelled("miniature:critic-test", 40)]
    with chat_server(vllm_answer(model, step=step)) as server:
        served = scores(asyncio.run(PoolingClient(server.url, "prm", concurrency=4)(asked)))
    local = scores(asyncio.run(model(asked)))
    assert [len(row) for row in local] == [len(one.ends) for one in asked]
    for one, other in zip(served, local, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_batches_change_no_score(miniature_prm: Path) -> None:
    model, tokenize = TokenClassifier.load(str(miniature_prm)), step_tokenizer()
    asked = [tokenize(row.problem, row.steps) for row in labelled("miniature:critic-test", 20)]
    alone = scores(TokenClassifier(model.model, batch_size=1).score(asked))
    for one, other in zip(alone, scores(model.score(asked)), strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    assert model.score([]) == []


def test_a_solution_too_long_for_the_model_is_one_failure(miniature_prm: Path) -> None:
    model = TokenClassifier.load(str(miniature_prm))
    long, short = model.score([StepTokens([7] * 512 + [20], [512]), StepTokens([7] * 511 + [20], [511])])
    assert long.error == "the solution has 513 tokens, the model's context 512"
    assert scores([short])


def test_weights_that_overflow_give_no_scores(miniature_prm: Path) -> None:
    model = TokenClassifier.load(str(miniature_prm))
    weights = model.model.get_input_embeddings().weight.data
    weights[ASKED.tokens[1]] = math.nan
    failed, fine = model.score([ASKED, StepTokens([7] * 9 + [20], [9])])
    assert (failed.error, failed.text) == ("no score of a step: expected a probability, not nan", "")
    assert scores([fine])


def test_one_label_is_a_logit(tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(model_folder("miniature:genrm"), num_labels=1, num_hidden_layers=1)
    made = AutoModelForTokenClassification.from_config(config).eval()
    made.save_pretrained(tmp_path)
    model = TokenClassifier.load(str(tmp_path))
    (found,) = scores(model.score([ASKED]))
    logits = made(input_ids=model.model.dummy_inputs["input_ids"].new_tensor([ASKED.tokens])).logits[0, :, 0]
    assert found == pytest.approx(logits[list(ASKED.ends)].sigmoid().tolist(), abs=1e-5)


def test_a_model_without_a_trained_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no token classifier, it lacks score.bias, score.weight"):
        TokenClassifier.load(model_folder("miniature:genrm"))
    config = AutoConfig.from_pretrained(model_folder("miniature:genrm"), num_labels=3, num_hidden_layers=1)
    AutoModelForTokenClassification.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="has 3 labels, must have one, or wrong and correct"):
        TokenClassifier.load(str(tmp_path))
