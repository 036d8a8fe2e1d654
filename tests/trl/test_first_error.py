"""First-error credit under TRL: the tokens before the error, of the error and after it have advantages of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from fapo.config.reader import from_dict
from fapo.data.miniature.sets import BASE_FOLDER, problems
from fapo.errors import ConfigError
from fapo.judge.oracle import oracle
from fapo.rewards.first_error import Parts, first_error_advantages, parts_of_all
from fapo.rewards.scorer import advantages_of_parts
from fapo.trl.arguments import grpo_config
from fapo.trl.first_error_credit import first_error_credit
from fapo.trl.judge_while_generating import judge_ahead
from fapo.trl.reward import FlawedAwareReward, flawed_aware_reward
from fapo.trl.token_advantages import token_advantages
from fapo.trl.train import train
from fapo.trl.trainer import Trainer
from fapo.types import ScoredRollout
from tests.support.trl_trainer import UsableTrainer
from tests.trl.test_reward import grpo
from tests.trl.test_train import all_rollouts, assert_same_curve, curve, replay, rows, settings

GROUP = 4
FIRST_ERROR = {"reward": {"kind": "first_error"}, "judge": {"kind": "oracle"}, "optim.steps": 2}


class Letters:
    """Tokenizer with a token for each character; 0 is special."""

    def decode(self, tokens: list[int], skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return "".join(chr(token) for token in tokens if token)


def test_each_token_has_the_advantage_of_its_part() -> None:
    thinking = "<think>hm</think> "
    texts = [f"{thinking}ab\n\ncd\n\nef", f"{thinking}ab\n\ncd", "xy", "éz"]
    parts = [
        Parts("ab\n\ncd\n\nef", 4, 8, 0.5, -1.0, 0.25),
        Parts("ab\n\ncd", 0, 4, 0.0, -2.0, 0.0),
        Parts("xy", 0, 2, 9.0, 2.0, 2.0),
        Parts("elsewhere", 3, 4, 1.0, -0.5, 0.0),
    ]
    longest = max(map(len, texts)) + 1
    ids = torch.tensor([[*map(ord, text), *[0] * (longest - len(text))] for text in texts])
    mask = torch.tensor([[1] * (len(text) + 1) + [0] * (longest - len(text) - 1) for text in texts])
    batch = {"completion_ids": ids, "completion_mask": mask, "advantages": torch.zeros(len(texts))}
    found = [
        row[: int(sum(m))] for row, m in zip(token_advantages(parts, batch, Letters()).tolist(), mask, strict=True)
    ]
    assert found[0] == [0.5] * (len(thinking) + 4) + [-1.0] * 4 + [0.25] * 3, "the last one ends the sequence"
    assert found[1] == [0.0] * len(thinking) + [-2.0] * 4 + [0.0] * 3
    assert found[2] == [2.0] * 3
    assert found[3] == [-0.5] * 3


@pytest.mark.slow
def test_trl_trains_on_both_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: dict[str, list[float]] = {}
    compute_loss = Trainer._compute_loss

    def seen(self: Trainer, model: Any, inputs: Any) -> Any:
        columns = (inputs[key] for key in ("completion_ids", "completion_mask", "advantages"))
        for ids, mask, advantages in zip(*columns, strict=True):
            length = int(mask.sum())
            text = self.processing_class.decode(ids[:length], skip_special_tokens=True)
            trained.setdefault(text, advantages[:length].tolist())
            tokens[text] = [self.processing_class.decode(token, skip_special_tokens=True) for token in ids[:length]]
        return compute_loss(self, model, inputs)

    tokens: dict[str, list[str]] = {}
    monkeypatch.setattr(Trainer, "_compute_loss", seen)
    folder = train(from_dict(settings(tmp_path, BASE_FOLDER / "policy", **FIRST_ERROR, **{"rollout.num_prompts": 24})))
    found = [row for row in rows(folder, "rollouts") if row["split"] == "train"]
    assert {row["status"] for row in found} == {"ok"}, "wrong rollouts are judged, too"
    num_parts = 0
    for start in range(0, len(found), GROUP):
        group = found[start : start + GROUP]
        begins = [bool(row["flawed"] and row["error_step"]) for row in group]
        (before,), (error,) = first_error_advantages([[row["reward"] for row in group]], [begins])
        assert [row["advantage"] for row in group] == pytest.approx(error.tolist(), abs=1e-5)
        for row, a, b in zip(group, before, error, strict=True):
            if [other["response"] for other in found].count(row["response"]) > 1:
                continue  # the same text in two groups
            advantages, pieces = trained[row["response"]], tokens[row["response"]]
            expected = [b] * len(pieces)
            if row["flawed"]:
                lines = row["response"].splitlines(keepends=True)
                ends = [len("".join(pieces[: i + 1])) for i in range(len(pieces))]
                places = [len("".join(lines[: row["error_step"] + i])) for i in (0, 1)]
                num_before, num_to_end = (sum(end <= place for end in ends[:-1]) for place in places)
                if len(lines) == row["error_step"] + 1:
                    num_to_end = len(pieces)
                expected = [a] * num_before + [b] * (num_to_end - num_before) + [0.0] * (len(pieces) - num_to_end)
                num_parts += num_before > 0
            assert advantages == pytest.approx(expected, abs=1e-5)
    assert num_parts > 10


@pytest.mark.slow
def test_four_processes_train_as_one(tmp_path: Path) -> None:
    """A process has 6 rollouts of a batch, so that groups of 4 are split."""
    changed = {
        **FIRST_ERROR,
        "judge.canaries": "miniature:critic-test",
        "judge.canary_rate": 0.5,
        "rollout": {"max_tokens": 64, "num_prompts": 6, "group_size": GROUP},
        "data.validation": None,
        "trl": {"save_strategy": "no"},
    }
    one, four = replay(tmp_path, settings(tmp_path, BASE_FOLDER / "policy", **changed), 1, 4).values()
    assert all_rollouts(four) == all_rollouts(one)
    assert_same_curve(curve(four), curve(one))


def test_a_fused_loss_is_refused(tmp_path: Path) -> None:
    table = settings(tmp_path, tmp_path, **FIRST_ERROR, trl={"use_liger_kernel": True})
    with pytest.raises(ConfigError, match="use_liger_kernel has one advantage"):
        grpo_config(from_dict(table))


def users_trainer(output: Path, reward: Any, **settings: Any) -> Any:
    """Return a trainer of a user's own script, with the base policy of the miniature."""
    questions = [
        {
            "prompt": [{"role": "user", "content": p.text}],
            "problem": p.text,
            "reference": p.reference,
            "id": p.id,
            "source": p.source,
        }
        for p in problems("miniature:train", 24)
    ]
    arguments = grpo(output, **{"max_completion_length": 64, "per_device_train_batch_size": 24 * GROUP} | settings)
    return UsableTrainer(
        model=str(BASE_FOLDER / "policy"), reward_funcs=reward, args=arguments, train_dataset=Dataset.from_list(questions)
    )


def test_one_line_gives_it_to_the_trainer_of_a_user(tmp_path: Path) -> None:
    """Each token has the advantage that the scored rollouts of the batch give it, in validations none."""
    scored: list[ScoredRollout] = []
    inner = flawed_aware_reward(oracle(), steps="lines", penalty=1.5)
    reward = FlawedAwareReward(inner.scorer, lambda batch, _: scored.extend(batch))
    trainer = users_trainer(tmp_path, reward, max_steps=1, steps_per_generation=1)
    first_error_credit(trainer)
    generate, batches = trainer._generate_and_score_completions, []

    def kept(inputs: Any) -> Any:
        batches.append(generate(inputs))
        return batches[-1]

    trainer._generate_and_score_completions = kept
    trainer.train()
    (batch,) = batches
    assert len(scored) == len(batch["advantages"]) == 24 * GROUP
    assert {s.verdict.status for s in scored if s.verdict} == {"ok"}
    assert all(s.verdict for s in scored), "wrong rollouts are judged, too"
    assert {s.reward.value for s in scored if s.correct and s.flawed} == {-0.5}
    parts = parts_of_all(scored, "lines", *advantages_of_parts(scored, [i // GROUP for i in range(len(scored))]))
    assert torch.equal(batch["advantages"], token_advantages(parts, batch, trainer.processing_class))
    several = [len(set(row[:length].tolist())) for row, length in zip(batch["advantages"], lengths(batch), strict=True)]
    assert sum(number == 3 for number in several) > 10, "before the error, the wrong step, and what follows it"

    trainer.model.eval()
    trainer.num_generations_eval = GROUP
    rewards = trainer._generate_and_score_completions([trainer.train_dataset[0]] * GROUP)
    assert rewards["advantages"].dim() == 1


def lengths(batch: Any) -> list[int]:
    return [int(length) for length in batch["completion_mask"].sum(1)]


def no_judge(output: Path) -> Any:
    return users_trainer(output, lambda completions, **_: [0.0] * len(completions))


def two_rewards(output: Path) -> Any:
    return users_trainer(output, [flawed_aware_reward(oracle()), lambda completions, **_: [0.0] * len(completions)])


def of_the_batch(output: Path) -> Any:
    return users_trainer(output, flawed_aware_reward(oracle()), scale_rewards="batch")


def yes_or_no(output: Path) -> Any:
    return users_trainer(output, flawed_aware_reward("http://localhost:1/v1", model="judge", template="yes_no"))


def ahead(output: Path) -> Any:
    trainer = users_trainer(output, flawed_aware_reward("http://localhost:1/v1", model="judge"))
    judge_ahead(trainer)
    return trainer


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_judge, "flawed_aware_reward must be the only one"),
        (two_rewards, "flawed_aware_reward must be the only one"),
        (of_the_batch, "scale_rewards is 'batch', must be 'group'"),
        (yes_or_no, "asks yes or no"),
        (ahead, "call it before judge_ahead"),
    ],
)
def test_trainers_that_cannot_have_it(make: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        first_error_credit(make(tmp_path))
