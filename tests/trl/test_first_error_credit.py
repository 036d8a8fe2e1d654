"""First-error credit in TRL's own GRPOTrainer, with every supported version of TRL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

import fapo.trl
from fapo.data.miniature.sets import BASE_FOLDER, problems
from fapo.errors import ConfigError
from fapo.inference.client import ChatClient
from fapo.judge.cascade import Cascade
from fapo.judge.genrm import GenRM
from fapo.judge.oracle import oracle
from fapo.judge.template import load_template
from fapo.rewards.first_error import parts_of_all
from fapo.rewards.scorer import advantages_of_parts
from fapo.trl.first_error import first_error_credit
from fapo.trl.judge_while_generating import judge_ahead
from fapo.trl.reward import FlawedAwareReward, flawed_aware_reward
from fapo.trl.token_advantages import token_advantages
from fapo.types import ScoredRollout
from tests.support.trl_trainer import UsableTrainer
from tests.trl.test_reward import grpo

GROUP = 4


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
        model=str(BASE_FOLDER / "policy"),
        reward_funcs=reward,
        args=arguments,
        train_dataset=Dataset.from_list(questions),
    )


@pytest.mark.parametrize("share", [True, False])
def test_one_line_gives_it_to_the_trainer_of_a_user(tmp_path: Path, share: bool) -> None:
    """Each token has the advantage that the scored rollouts of the batch give it, in validations none."""
    scored: list[ScoredRollout] = []
    inner = flawed_aware_reward(oracle(), penalty=1.5)
    reward = FlawedAwareReward(inner.scorer, lambda batch, _: scored.extend(batch))
    trainer = users_trainer(tmp_path, reward, max_steps=1, steps_per_generation=1)
    first_error_credit(trainer, share_credit=share)
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
    advantages = advantages_of_parts(scored, [i // GROUP for i in range(len(scored))])
    parts = parts_of_all(scored, "lines", *advantages, share)
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


def yes_or_no_in_a_cascade(output: Path) -> Any:
    client = ChatClient("http://localhost:1/v1", "judge")
    cheap, strong = (GenRM(load_template(template), client) for template in ("yes_no", "locate"))
    return users_trainer(output, flawed_aware_reward(Cascade(cheap, strong, (0.3, 0.7))))


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
        (yes_or_no_in_a_cascade, "asks yes or no"),
        (ahead, "call it before judge_ahead"),
    ],
)
def test_trainers_that_cannot_have_it(make: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        first_error_credit(make(tmp_path))


def test_the_package_has_the_function_and_not_a_module_of_its_name() -> None:
    assert fapo.trl.first_error_credit is first_error_credit
    assert fapo.trl.judge_ahead is judge_ahead
