"""The server for one CPU thread writes what `generate` of transformers writes, whatever else is in its batch."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
import torch
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen2Config, Qwen2ForCausalLM

from experiments.real_model import cpu_server
from experiments.real_model.cpu_server import Batch, Request, common_start
from fapo.config.sampling import Sampling
from fapo.inference.transformers_model import LocalModel
from tests.support.paths import ROOT

START = [7, 3, 9, 11, 5]
PROMPTS = [[*START, *rest] for rest in ([1], [2, 8, 20], list(range(20, 60)), [4, 4], [90, 91], [17, 2, 2, 2])]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a random Qwen2 model in 32 bits, and the tokenizer of the miniature."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    config = Qwen2Config(vocab_size=306, num_key_value_heads=2, initializer_range=0.5, pad_token_id=0, **sizes)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    base = ROOT / "src/fapo/data/miniature/base/policy"
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(base / name, folder / name)
    return folder


def written_alone(folder: Path, prompt: list[int], num: int) -> list[int]:
    model = Qwen2ForCausalLM.from_pretrained(folder).eval()
    ids = torch.tensor([prompt])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=num, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    return out[0, len(prompt) :].tolist()


@torch.no_grad()
def answers(batch: Batch, requests: list[Request]) -> list[tuple[list[int], bool]]:
    batch.waiting += requests
    for _ in range(500):
        if not batch.step():
            break
    return [request.answer.result(timeout=0) for request in requests]


@pytest.mark.parametrize("slots", [1, 2, 8])
def test_the_tokens_are_those_of_transformers(folder: Path, slots: int) -> None:
    batch = Batch(folder, ends=set(), slots=slots, room=100)
    limits = [5, 12, 8, 1, 12, 7]
    found = answers(batch, [Request(p, n) for p, n in zip(PROMPTS, limits, strict=True)])
    assert found == [(written_alone(folder, p, n), False) for p, n in zip(PROMPTS, limits, strict=True)]
    assert batch.start == START


def test_an_end_token_ends_an_answer_and_is_left_out(folder: Path) -> None:
    alone = written_alone(folder, PROMPTS[1], 12)
    end = alone[4]
    (found, _) = answers(Batch(folder, {end}, slots=2, room=100), [Request(PROMPTS[1], 12), Request(PROMPTS[2], 2)])
    assert found == (alone[: alone.index(end)], True)


def test_other_prompts_wait_for_the_batch_and_get_a_start_of_their_own(folder: Path) -> None:
    batch = Batch(folder, ends=set(), slots=4, room=100)
    others = [[50, 51, 52, 53], [50, 51, 60]]
    found = answers(batch, [Request(p, 6) for p in [*PROMPTS, *others]])
    assert [tokens for tokens, _ in found] == [written_alone(folder, p, 6) for p in [*PROMPTS, *others]]
    again = answers(batch, [Request(p, 6) for p in (PROMPTS[0], PROMPTS[3])])
    assert [tokens for tokens, _ in again] == [written_alone(folder, p, 6) for p in (PROMPTS[0], PROMPTS[3])]


def test_a_prompt_without_room_is_refused_and_a_cancelled_one_is_not_read(folder: Path) -> None:
    batch = Batch(folder, ends=set(), slots=2, room=20)
    long, cancelled, short = Request(PROMPTS[2], 5), Request(PROMPTS[3], 5), Request(PROMPTS[1], 5)
    cancelled.answer.cancel()
    batch.waiting += [long, cancelled, short]
    with torch.no_grad():
        while batch.step():
            pass
    assert isinstance(long.answer.exception(), ValueError)
    assert not cancelled.written
    assert short.answer.result(timeout=0)[0] == written_alone(folder, PROMPTS[1], 5)


def test_the_chat_api(folder: Path) -> None:
    conversations = [[{"role": "user", "content": text}] for text in ("7 + 5", "3 * 8 - 2")]
    local = LocalModel.load(str(folder), Sampling(max_tokens=9), batch_size=1)

    async def ask() -> list[dict]:
        async with TestClient(TestServer(cpu_server.application(folder))) as client:
            assert (await (await client.get("/v1/models")).json())["data"][0]["id"] == "tiny"
            body = {"model": "tiny", "max_tokens": 9, "temperature": 0}
            hot = await client.post("/v1/chat/completions", json=body | {"messages": [], "temperature": 1})
            assert hot.status == 400
            sent = [client.post("/v1/chat/completions", json=body | {"messages": m}) for m in conversations]
            return [await answer.json() for answer in await asyncio.gather(*sent)]

    for answer, alone in zip(asyncio.run(ask()), local.generate(conversations), strict=True):
        choice = answer["choices"][0]
        assert choice["message"]["content"] == alone.text
        assert choice["finish_reason"] == ("length" if alone.truncated else "stop")
        assert answer["usage"]["completion_tokens"] == alone.num_tokens


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=5))
def test_the_common_start_is_the_longest(prompts: list[list[int]]) -> None:
    start = common_start(prompts)
    num = len(start)
    assert all(prompt[:num] == start and len(prompt) > num for prompt in prompts)
    assert any(len(prompt) == num + 1 or prompt[num] != prompts[0][num] for prompt in prompts)
