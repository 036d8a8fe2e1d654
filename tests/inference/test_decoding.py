"""Tests of the decoding loop: the tokens of transformers, with fewer rows in the forward passes."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen3Config, StoppingCriteria
from transformers.generation.utils import GenerationMixin

from fapo.inference.decoding import decode

SIZES = {
    "vocab_size": 24,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
PROMPTS = torch.tensor([[0, 0, 5, 6]] * 3 + [[7, 8, 9, 10]] * 3 + [[0, 11, 12, 13]] + [[7, 8, 9, 10]])
MASK = (PROMPTS != 0).long()


def model_of(config: Any = None) -> Any:
    """Return a small model with random weights that ends its sequences after different numbers of tokens."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config or LlamaConfig(**SIZES)).eval()


def written(model: Any, loop: Any = None, mask: Any = MASK, **settings: Any) -> Any:
    """Return what a model writes after PROMPTS."""
    torch.manual_seed(1)
    sampling = {"do_sample": True, "top_k": 0, "max_new_tokens": 24, **settings}
    return model.generate(input_ids=PROMPTS, attention_mask=mask, custom_generate=loop, **sampling)


@pytest.mark.parametrize("config", [LlamaConfig, Qwen3Config])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.6, "top_p": 0.9},
        {"top_k": 5, "min_p": 0.1},
        {"do_sample": False},
        {"min_new_tokens": 3},  # what follows is decoded by transformers
        {"repetition_penalty": 1.3},
        {"num_beams": 2, "do_sample": False},
        {"num_return_sequences": 2},
        {"use_cache": False},
        {"cache_implementation": "static"},
    ],
    ids=str,
)
def test_writes_the_same_tokens(config: Any, settings: dict[str, Any]) -> None:
    model = model_of(config(**SIZES))
    assert torch.equal(written(model, decode, **settings), written(model, **settings))


def test_writes_the_same_tokens_without_padding() -> None:
    model, ones = model_of(), torch.ones_like(PROMPTS)
    assert torch.equal(written(model, decode, ones), written(model, None, ones))


def test_reads_equal_prompts_once_and_drops_ended_sequences() -> None:
    model, rows = model_of(), []
    model.register_forward_pre_hook(lambda _, __, inputs: rows.append(len(inputs["input_ids"])), with_kwargs=True)
    written(model, decode)
    assert rows[0] == 3, "three different prompts"
    assert rows[1] == 8
    assert rows[1:] == sorted(rows[1:], reverse=True)
    assert rows[-1] < 8


def test_a_criterion_sees_all_sequences() -> None:
    seen: list[torch.Size] = []

    class Watch(StoppingCriteria):
        def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
            seen.append(input_ids.shape)
            return torch.zeros(len(input_ids), dtype=torch.bool)

    tokens = written(model_of(), decode, stopping_criteria=[Watch()])
    assert seen == [(8, length) for length in range(5, tokens.shape[1] + 1)]


@pytest.mark.parametrize(
    ("config", "training"),
    [(MistralConfig(**SIZES, sliding_window=3), False), (LlamaConfig(**SIZES, attention_dropout=0.5), True)],
    ids=["sliding window", "dropout"],
)
def test_leaves_other_models_to_transformers(config: Any, training: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, sample = [], GenerationMixin._sample

    @functools.wraps(sample)
    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return sample(*args, **kwargs)

    monkeypatch.setattr(GenerationMixin, "_sample", counted)
    model = model_of(config).train(training)
    tokens = written(model, decode)
    assert calls == [1]
    assert torch.equal(tokens, written(model))


def test_runs_with_the_installed_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    @functools.wraps(GenerationMixin._sample)
    def fail(*_: Any, **__: Any) -> Any:
        raise AssertionError("transformers has decoded: check fapo.inference.decoding with this version")

    monkeypatch.setattr(GenerationMixin, "_sample", fail)
    assert written(model_of(), decode, max_new_tokens=2).shape == (8, 6)
