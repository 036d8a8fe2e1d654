"""Advantages, against tables, by their invariants, and against those of TRL."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.rewards.advantages import flawed_fraction, group_advantages, mean_advantage_by_class
from fapo.types import RolloutClass

NAN = math.nan
HALF = math.sqrt(0.5)


@pytest.mark.parametrize(
    ("group", "expected"),
    [
        ([1, -1], [HALF, -HALF]),
        ([1, -1, NAN], [HALF, -HALF, 0]),
        ([1, 0, -1], [1, 0, -1]),
        ([1, None, 0, -1], [1, 0, 0, -1]),
        ([0.1] * 7, [0] * 7),
        ([1, NAN, NAN], [0, 0, 0]),
        ([NAN, NAN], [0, 0]),
        ([1], [0]),
    ],
)
def test_group_advantages(group: list[float | None], expected: list[float]) -> None:
    np.testing.assert_allclose(group_advantages([group], eps=0.0), [expected], atol=1e-15)
    assert (group_advantages([group])[0] == 0).tolist() == [value == 0 for value in expected]


def test_group_advantages_eps_and_scale() -> None:
    np.testing.assert_allclose(group_advantages([[1, 0, -1]], eps=1e-4), [[1 / 1.0001, 0, -1 / 1.0001]])
    np.testing.assert_allclose(
        group_advantages([[1, 0, NAN], [1, NAN, NAN]], scale=False), [[0.5, -0.5, 0.0], [0.0, 0.0, 0.0]]
    )
    assert group_advantages(np.empty((0, 4))).shape == (0, 4)


@pytest.mark.parametrize("rewards", [[1.0, 2.0], [[[1.0]]], 1.0, np.empty((2, 0))])
def test_group_advantages_rejects_other_shapes(rewards: Any) -> None:
    with pytest.raises(ValueError, match="num_prompts, group_size"):
        group_advantages(rewards)


@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_group_advantages_rejects_infinities(value: float) -> None:
    with pytest.raises(ValueError, match="NaN"):
        group_advantages([[1.0, value]])


# Rewards on a grid, so that the std of a group is 0 or far above eps.
scored_reward = st.integers(-40, 40).map(lambda n: n / 10)


groups = st.integers(1, 9).flatmap(
    lambda size: st.lists(
        st.lists(st.one_of(scored_reward, st.just(NAN)), min_size=size, max_size=size), min_size=1, max_size=5
    )
)


@given(groups, st.randoms(use_true_random=False), st.integers(-5, 5), st.floats(0.5, 20))
def test_group_advantages_invariants(group_rewards: list[list[float]], rnd: Any, shift: int, factor: float) -> None:
    rewards = np.array(group_rewards)
    advantages = group_advantages(rewards, eps=0.0)
    np.testing.assert_allclose(advantages.sum(axis=1), 0, atol=1e-9)
    assert (advantages[np.isnan(rewards)] == 0).all()

    order = rnd.sample(range(rewards.shape[1]), rewards.shape[1])
    np.testing.assert_allclose(group_advantages(rewards[:, order], eps=0.0), advantages[:, order], atol=1e-9)
    np.testing.assert_allclose(group_advantages(rewards * factor + shift, eps=0.0), advantages, atol=1e-6)
    np.testing.assert_allclose(group_advantages(rewards + shift), group_advantages(rewards), atol=1e-9)

    # Leaving out an unscored rollout changes nothing, and groups are independent.
    for row, expected in zip(rewards, advantages, strict=True):
        scored = ~np.isnan(row)
        if scored.any():
            np.testing.assert_allclose(group_advantages([row[scored]], eps=0.0)[0], expected[scored], atol=1e-12)
        if scored.sum() > 1 and np.ptp(row[scored]) > 0:
            assert expected[scored].std(ddof=1) == pytest.approx(1.0)


def test_mean_advantage_by_class() -> None:
    advantages = [2.0, 1.0, -1.0, 0.0, 4.0, 0.5, -3.0, 0.0]
    classes: list[RolloutClass] = ["fully_correct", "flawed", "wrong", "unscored"]
    classes += ["fully_correct", "flawed", "wrong", "wrong"]
    means = mean_advantage_by_class(advantages, classes)
    assert means == {"fully_correct": 3.0, "flawed": 0.75, "wrong": pytest.approx(-4 / 3)}
    assert all(math.isnan(value) for value in mean_advantage_by_class([1.0], ["unscored"]).values())
    with pytest.raises(ValueError, match=r"got \(2,\) and \(1,\)"):
        mean_advantage_by_class([1.0, 2.0], ["wrong"])


def test_the_fraction_of_the_positive_advantage_that_flawed_positives_get() -> None:
    classes: list[RolloutClass] = ["fully_correct", "flawed", "wrong", "unscored", "flawed"]
    assert flawed_fraction([3.0, 1.0, -2.0, 9.0, -1.0], classes) == 0.25
    assert math.isnan(flawed_fraction([0.0, -1.0, 0.0, 9.0, 0.0], classes))


@given(st.integers(0, 8), st.integers(0, 8), st.integers(0, 8))
def test_a_larger_penalty_lowers_the_fraction_and_2_makes_it_0(correct: int, flawed: int, wrong: int) -> None:
    classes: list[RolloutClass] = ["fully_correct"] * correct + ["flawed"] * flawed + ["wrong"] * wrong
    fractions = []
    for penalty in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0) if classes else ():
        rewards = [1.0] * correct + [1.0 - penalty] * flawed + [-1.0] * wrong
        fractions.append(flawed_fraction(group_advantages([rewards])[0], classes))
    if correct:
        known = [fraction for fraction in fractions if not math.isnan(fraction)]
        assert known == pytest.approx(sorted(known, reverse=True))
        assert all(fraction == 0 or math.isnan(fraction) for fraction in fractions[4:])


@given(st.integers(1, 7), st.integers(1, 7), st.floats(0, 1.9), st.floats(2.1, 4))
def test_without_fully_correct_rollouts_only_the_side_of_2_matters(
    flawed: int, wrong: int, low: float, high: float
) -> None:
    def advantages(penalty: float) -> np.ndarray:
        return group_advantages([[1.0 - penalty] * flawed + [-1.0] * wrong], eps=0.0)[0]

    np.testing.assert_allclose(advantages(low), advantages(1.0), atol=1e-9)
    np.testing.assert_allclose(advantages(high), -advantages(1.0), atol=1e-9)
    assert not advantages(2.0).any()
    assert (advantages(1.0)[:flawed] > 0).all()


# One row a prompt: mixed, unscored, one scored, none scored, equal, fractions.
TRL_REWARDS: list[list[float | None]] = [
    [1.0, 0.0, -1.0, -1.0],
    [1.0, None, -1.0, 0.0],
    [None, 1.0, None, None],
    [None, None, None, None],
    [1.0, 1.0, 1.0, 1.0],
    [0.1, 0.1, 0.1, None],
    [1.0, 0.75, -1.3, -0.2],
    [0.0, 0.0, None, -1.0],
]


@pytest.mark.slow
@pytest.mark.parametrize("scale_rewards", ["group", "none"])
@pytest.mark.filterwarnings("ignore")
def test_group_advantages_equal_those_of_trl(
    scale_rewards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run one training step of the real GRPOTrainer with the table above as rewards."""
    for name in ("torch", "datasets", "trl"):
        pytest.importorskip(name, reason="parity needs the train extra")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    num_prompts, group_size = len(TRL_REWARDS), len(TRL_REWARDS[0])
    model, tokenizer = _tiny_model()
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    seen: list[list[float | None]] = []

    def prescribed(prompts: list[str], row: list[int], **_: Any) -> list[float | None]:
        """Return the rewards of each prompt in the table; TRL shuffles prompts but keeps groups together."""
        values = [TRL_REWARDS[index][place % group_size] for place, index in enumerate(row)]
        seen.extend(values[start : start + group_size] for start in range(0, len(values), group_size))
        assert all(len(set(row[start : start + group_size])) == 1 for start in range(0, len(row), group_size))
        return values

    trainer = GRPOTrainer(
        model=str(tmp_path / "model"),
        processing_class=tokenizer,
        reward_funcs=prescribed,
        args=GRPOConfig(
            output_dir=str(tmp_path / "run"),
            use_cpu=True,
            bf16=False,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            max_steps=1,
            per_device_train_batch_size=num_prompts * group_size,
            num_generations=group_size,
            max_completion_length=4,
            scale_rewards=scale_rewards,
        ),
        train_dataset=Dataset.from_dict({"prompt": ["a b c"] * num_prompts, "row": list(range(num_prompts))}),
    )
    trainer.train()

    assert sorted(map(str, seen)) == sorted(map(str, TRL_REWARDS))
    expected = group_advantages(np.array(seen, dtype=float), scale=scale_rewards == "group")
    theirs = np.array(list(trainer._logs["advantages"])).reshape(expected.shape)
    np.testing.assert_allclose(expected, theirs, atol=1e-5)
    assert np.abs(expected).max() > 0.5


def _tiny_model() -> tuple[Any, Any]:
    """Return a Llama of about ten thousand parameters and a word tokenizer."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<pad>", "<eos>", "<unk>", *"abcdefgh"]
    backend = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    backend.pre_tokenizer = Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    return LlamaForCausalLM(config), tokenizer
