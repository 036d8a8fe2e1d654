"""The reward functions against tables, simulated groups, and TRL's own advantages."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fapo.config.schema import FapoReward
from fapo.rewards import genrm, theory
from fapo.rewards import policy as r
from fapo.rewards.advantages import group_advantages, mean_advantage_by_class
from fapo.types import RolloutClass

# --- The policy's reward ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("correct", "flawed", "penalty", "expected"),
    [
        (True, False, 1.0, 1.0),
        (True, True, 1.0, 0.0),
        (True, True, 0.0, 1.0),
        (True, True, 2.0, -1.0),
        (True, True, 0.5, 0.5),
        (True, None, 1.0, None),
        (True, None, 0.0, None),
        (False, True, 1.0, -1.0),
        (False, False, 1.0, -1.0),
        (False, None, 1.0, -1.0),
    ],
)
def test_fapo_reward(correct: bool, flawed: bool | None, penalty: float, expected: float | None) -> None:
    assert r.fapo_reward(correct, flawed, penalty) == expected


@pytest.mark.parametrize("penalty", [-0.1, math.inf, math.nan])
def test_penalty_must_be_finite_and_not_negative(penalty: float) -> None:
    for call in (lambda: r.fapo_reward(True, True, penalty), lambda: theory.shift_ratio(penalty)):
        with pytest.raises(ValueError, match="penalty"):
            call()


rates = st.tuples(st.floats(0.05, 1), st.floats(0, 0.95)).filter(lambda pair: pair[0] > pair[1] + 0.01)


@given(st.floats(0, 3), rates)
def test_the_corrected_reward_is_right_on_average(penalty: float, judge: tuple[float, float]) -> None:
    recall, rate = judge
    flagged, cleared = (r.corrected_reward(True, flawed, penalty, recall, rate) for flawed in (True, False))
    assert recall * flagged + (1 - recall) * cleared == pytest.approx(1 - penalty, abs=1e-6)
    assert rate * flagged + (1 - rate) * cleared == pytest.approx(1, abs=1e-6)


@given(st.booleans(), st.none() | st.booleans(), st.floats(0, 3))
def test_a_judge_without_errors_needs_no_correction(correct: bool, flawed: bool | None, penalty: float) -> None:
    assert r.corrected_reward(correct, flawed, penalty, 1.0, 0.0) == r.fapo_reward(correct, flawed, penalty)


def test_a_judge_that_says_nothing_cannot_be_corrected() -> None:
    with pytest.raises(ValueError, match="recall of the judge must be above its false positive rate"):
        r.corrected_reward(True, True, 1.0, 0.3, 0.3)


@pytest.mark.parametrize(
    ("correct", "error_step", "num_steps", "expected"),
    [
        (True, None, 4, 2.0),
        (True, 0, 4, 1.0),
        (True, 3, 4, 1.75),
        (False, None, 4, 0.0),
        (False, 0, 4, -1.0),
        (False, 2, 4, -0.5),
    ],
)
def test_step_ratio_reward(correct: bool, error_step: int | None, num_steps: int, expected: float) -> None:
    assert r.step_ratio_reward(correct, error_step is not None, error_step, num_steps) == expected


@pytest.mark.parametrize("correct", [True, False])
@pytest.mark.parametrize("flawed", [None, True])
def test_step_ratio_reward_without_a_verdict_or_a_step_is_unscored(correct: bool, flawed: bool | None) -> None:
    assert r.step_ratio_reward(correct, flawed, None, 4) is None


@pytest.mark.parametrize(
    ("num_tokens", "max_tokens", "buffer", "expected"),
    [
        (0, 100, 40, 0.0),
        (60, 100, 40, 0.0),
        (61, 100, 40, -1 / 40),
        (80, 100, 40, -0.5),
        (100, 100, 40, -1.0),
        (500, 100, 40, -1.0),
        (500, 100, 0, 0.0),
        (50, 100, 100, -0.5),
    ],
)
def test_overlong_penalty(num_tokens: int, max_tokens: int, buffer: int, expected: float) -> None:
    assert r.overlong_penalty(num_tokens, max_tokens, buffer) == expected


@pytest.mark.parametrize("buffer", [-1, 101])
def test_overlong_buffer_must_fit_the_limit(buffer: int) -> None:
    with pytest.raises(ValueError, match="buffer"):
        r.overlong_penalty(10, 100, buffer)


# --- The GenRM's reward ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error_step", "label", "num_steps", "expected"),
    [
        (None, None, 5, 1.0),
        (2, 2, 5, 1.0),
        (0, 4, 5, 0.2),
        (4, 0, 5, 0.2),
        (1, 2, 5, 0.8),
        (None, 2, 5, -1.0),
        (2, None, 5, -1.0),
        (0, 0, 1, 1.0),
    ],
)
def test_genrm_reward(error_step: int | None, label: int | None, num_steps: int, expected: float) -> None:
    flawed = error_step is not None
    assert genrm.genrm_reward(flawed, error_step, label, num_steps) == pytest.approx(expected, abs=1e-15)
    assert genrm.genrm_outcome_reward(flawed, label is not None) == (1.0 if expected > 0 else -1.0)


@pytest.mark.parametrize("label", [None, 2])
def test_genrm_without_a_verdict_earns_minus_one(label: int | None) -> None:
    assert genrm.genrm_reward(None, None, label, 5) == -1.0
    assert genrm.genrm_outcome_reward(None, label is not None) == -1.0


@pytest.mark.parametrize("label", [None, 2])
def test_a_flag_without_a_step_has_no_step_reward(label: int | None) -> None:
    assert genrm.genrm_outcome_reward(True, label is not None) == (-1.0 if label is None else 1.0)
    with pytest.raises(ValueError, match="needs the step of its error"):
        genrm.genrm_reward(True, None, label, 5)


@pytest.mark.parametrize(("error_step", "label", "num_steps"), [(5, 2, 5), (2, 5, 5), (-1, 2, 5), (None, None, 0)])
def test_genrm_steps_must_be_inside_the_solution(error_step: int | None, label: int | None, num_steps: int) -> None:
    with pytest.raises(ValueError, match="steps"):
        genrm.genrm_reward(error_step is not None, error_step, label, num_steps)


@given(st.integers(1, 60), st.data())
def test_genrm_reward_ranks_by_distance_and_never_below_a_wrong_label(num_steps: int, data: st.DataObject) -> None:
    step = st.integers(0, num_steps - 1)
    reference, near, far = data.draw(step), data.draw(step), data.draw(step)
    assume(abs(near - reference) < abs(far - reference))
    rewards = [genrm.genrm_reward(p is not None, p, reference, num_steps) for p in (reference, near, far, None)]
    assert rewards[0] == 1.0 >= rewards[1] > rewards[2] > 1 / num_steps - 1e-12
    assert rewards[3] == -1.0


# --- Advantages ------------------------------------------------------------------------------------------------------

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


# Rewards on a grid, so that a group's spread is 0 or far above eps.
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

    # An unscored rollout is as good as absent, and groups do not see each other.
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


# --- Theory ----------------------------------------------------------------------------------------------------------

counts = st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30)).filter(lambda c: sum(c) > 0)
penalties = st.sampled_from([0.0, 0.25, 0.5, 2 / 3, 1.0, 4 / 3, 1.5, 2.0, 3.0, 4.0])


def group_of(num_fully_correct: int, num_flawed: int, num_wrong: int, penalty: float) -> np.ndarray:
    verdicts = [(True, False)] * num_fully_correct + [(True, True)] * num_flawed + [(False, None)] * num_wrong
    return np.array([r.fapo_reward(correct, flawed, penalty) for correct, flawed in verdicts])


@given(counts, penalties)
def test_closed_forms_equal_simulated_populations(classes: tuple[int, int, int], penalty: float) -> None:
    rewards = group_of(*classes, penalty)
    alpha, _, beta = (number / sum(classes) for number in classes)
    assert theory.fapo_mean(alpha, beta, penalty) == pytest.approx(rewards.mean(), abs=1e-12)
    assert theory.fapo_variance(alpha, beta, penalty) == pytest.approx(rewards.var(), abs=1e-12)
    if np.ptp(rewards) > 0:
        normalised = (rewards - rewards.mean()) / rewards.std()
        first = np.cumsum([0, *classes])[:3]
        for number, index, advantage in zip(
            classes, first, theory.expected_advantages(alpha, beta, penalty), strict=True
        ):
            if number:
                assert advantage == pytest.approx(normalised[index], abs=1e-9)


@given(counts, penalties)
def test_variance_formula_as_published(classes: tuple[int, int, int], penalty: float) -> None:
    alpha, gamma, beta = (number / sum(classes) for number in classes)
    assume(classes[0] + classes[2] > 0)
    growth = penalty * gamma * (1 - gamma) * (penalty - 4 / (theory.rho(classes[0], classes[2]) + 1))
    plain = theory.fapo_variance(alpha, beta, 0.0)
    assert plain == pytest.approx(4 * beta * (1 - beta), abs=1e-12)
    assert theory.fapo_variance(alpha, beta, penalty) == pytest.approx(plain + growth, abs=1e-12)


@given(counts, penalties)
def test_flawed_positives_change_sign_exactly_at_the_shift_ratio(classes: tuple[int, int, int], penalty: float) -> None:
    num_fully_correct, num_flawed, num_wrong = classes
    assume(num_flawed > 0 and num_fully_correct + num_wrong > 0)
    advantage = group_advantages([group_of(*classes, penalty)])[0, num_fully_correct]
    ratio, shift = theory.rho(num_fully_correct, num_wrong), theory.shift_ratio(penalty)
    if math.isclose(ratio, shift, rel_tol=1e-9, abs_tol=1e-9) or ratio == shift:
        assert advantage == pytest.approx(0, abs=1e-9)
    else:
        assert (advantage < 0) == (ratio > shift)


@given(counts, penalties.filter(lambda p: p > 0))
def test_what_shrinks_beyond_the_shrink_ratio_is_the_gap(classes: tuple[int, int, int], penalty: float) -> None:
    assume(min(classes) > 0)
    alpha, gamma, beta = (number / sum(classes) for number in classes)
    correct, flawed, wrong = theory.expected_advantages(alpha, beta, penalty)
    plain_correct, _, plain_wrong = theory.expected_advantages(alpha, beta, 0.0)
    ratio, shrink = theory.rho(classes[0], classes[2]), theory.shrink_ratio(penalty)
    if not math.isclose(ratio, shrink, rel_tol=1e-9):
        assert (correct - wrong < plain_correct - plain_wrong) == (ratio > shrink)
    # Whatever rho is, the fully correct gain and the right answers as a whole lose.
    assert correct > plain_correct
    if penalty <= 2:
        assert (alpha * correct + gamma * flawed) / (alpha + gamma) < plain_correct


@pytest.mark.parametrize(
    ("penalty", "shift", "shrink"), [(0.0, math.inf, math.inf), (1.0, 1.0, 3.0), (2.0, 0.0, 1.0), (4.0, -0.5, 0.0)]
)
def test_thresholds(penalty: float, shift: float, shrink: float) -> None:
    assert (theory.shift_ratio(penalty), theory.shrink_ratio(penalty)) == (shift, shrink)


@pytest.mark.parametrize(("ratio", "penalty"), [(0.0, 2.0), (0.5, 4 / 3), (1.0, 1.0), (2.0, 2 / 3)])
def test_the_penalty_of_a_config_puts_the_shift_where_it_says(ratio: float, penalty: float) -> None:
    assert FapoReward(shift=ratio).penalty == pytest.approx(penalty)
    assert theory.shift_ratio(penalty) == pytest.approx(ratio)


GROUPS = st.integers(1, 6).flatmap(
    lambda size: st.lists(st.lists(st.sampled_from("afw"), min_size=size, max_size=size), min_size=1, max_size=8)
)


@given(GROUPS, st.floats(0.1, 2.0))
def test_flawed_positives_of_a_batch_change_sign_at_their_own_rho(groups: list[list[str]], penalty: float) -> None:
    ratio = theory.flawed_rho(*([group.count(kind) for group in groups] for kind in "afw"))
    assume(not math.isnan(ratio) and abs(ratio - theory.shift_ratio(penalty)) > 1e-9)
    earned = {"a": 1.0, "f": 1.0 - penalty, "w": -1.0}
    advantages = group_advantages([[earned[kind] for kind in group] for group in groups], scale=False)
    mean = advantages[np.array(groups) == "f"].mean()
    assert (mean < 0) == (ratio > theory.shift_ratio(penalty))


def test_flawed_rho() -> None:
    assert theory.flawed_rho([1, 8], [2, 0], [4, 0]) == 1 / 4, "the solved group says nothing"
    assert theory.flawed_rho([2, 3], [1, 2], [1, 2]) == (2 + 6) / (1 + 4)
    assert theory.flawed_rho([1], [1], [0]) == math.inf
    assert math.isnan(theory.flawed_rho([1], [0], [3]))
    assert math.isnan(theory.flawed_rho([], [], []))
    with pytest.raises(ValueError, match="num_groups"):
        theory.flawed_rho([1], [1, 2], [1])
    with pytest.raises(ValueError, match="negative"):
        theory.flawed_rho([1], [-1], [1])


def test_rho() -> None:
    assert theory.rho(3, 2) == 1.5
    assert theory.rho(0, 2) == 0.0
    assert theory.rho(3, 0) == math.inf
    assert math.isnan(theory.rho(0, 0))
    with pytest.raises(ValueError, match="negative"):
        theory.rho(-1, 2)


def test_expected_advantages_are_zero_where_all_rewards_are_equal() -> None:
    for alpha, beta, penalty in [(1.0, 0.0, 1.0), (0.0, 1.0, 1.0), (0.0, 0.0, 1.0), (0.0, 0.3, 2.0), (0.4, 0.0, 0.0)]:
        assert theory.expected_advantages(alpha, beta, penalty) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(("alpha", "beta"), [(-0.1, 0.5), (0.5, -0.1), (0.6, 0.5), (math.nan, 0.1)])
def test_fractions_must_be_fractions(alpha: float, beta: float) -> None:
    for function in (theory.fapo_mean, theory.fapo_variance, theory.expected_advantages):
        with pytest.raises(ValueError, match="must be fractions"):
            function(alpha, beta, 1.0)


# --- Parity with TRL -------------------------------------------------------------------------------------------------

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


@pytest.mark.parametrize("scale_rewards", ["group", "none"])
@pytest.mark.filterwarnings("ignore")
def test_group_advantages_equal_those_of_trl(
    scale_rewards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One training step of the real GRPOTrainer, whose reward function hands out the table above."""
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
        """The table's row of each prompt; TRL shuffles prompts but keeps a group together."""
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
    """A Llama of about ten thousand parameters and a word tokenizer, both made here."""
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
