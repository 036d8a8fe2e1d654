"""Arguments of TRL's trainers for a config."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import get_scheduler
from trl import GRPOConfig

from fapo.config.flatten import flatten
from fapo.config.reader import from_dict, to_dict
from fapo.config.schema import Config
from fapo.errors import ConfigError
from fapo.trl.arguments import OWNERS, dry_run, grpo_config, sft_config
from fapo.trl.checkpoints import load_model
from tests.support import parity


def config(output: Path, *, method: str = "rl", trl: dict[str, Any] | None = None, micro_batch: int = 0) -> Config:
    """Return a config with 32 rollouts in a batch; method "sft" is for a GenRM."""
    table: dict[str, Any] = {
        "name": "run",
        "task": "policy",
        "output": str(output),
        "model": {"path": "miniature:policy"},
        "data": {"train": "miniature:train", "validation": {"easy": "miniature:validation"}},
        "rollout": {"max_tokens": 24, "num_prompts": 8, "group_size": 4},
        "optim": {"steps": 6, "learning_rate": 1e-3} | ({"micro_batch_size": micro_batch} if micro_batch else {}),
        "trl": trl or {},
    }
    if method == "sft":
        return from_dict(table | {"task": "genrm", "method": "sft", "genrm": {"template": "compact"}})
    return from_dict(table | {"reward": {"kind": "fapo"}, "judge": {"kind": "oracle"}})


def test_settings_of_the_trl_table_win_where_the_config_has_none(tmp_path: Path) -> None:
    plain = grpo_config(config(tmp_path))
    assert (plain.loss_type, plain.epsilon, plain.epsilon_high, plain.beta) == ("dapo", 0.2, 0.28, 0.0)
    assert (plain.delta, plain.vllm_importance_sampling_correction) == (None, False), "verl has none either"
    table = to_dict(config(tmp_path))
    assert grpo_config(from_dict(table | {"optim": table["optim"] | {"clip_dual": 10.0}})).delta == 10.0
    changed = grpo_config(config(tmp_path, trl={"loss_type": "grpo", "beta": 0.01, "generation_kwargs": {"top_k": 5}}))
    assert (changed.loss_type, changed.beta, changed.generation_kwargs) == ("grpo", 0.01, {"top_k": 5})
    with pytest.raises(ConfigError, match=r"\[trl\]: .*nonsense"):
        grpo_config(config(tmp_path, trl={"nonsense": 1}))


CONTRADICTIONS = [
    ({"num_generations": 8}, "num_generations = 8 contradicts rollout.group_size = 4"),
    ({"max_completion_length": 99}, "max_completion_length = 99 contradicts rollout.max_tokens = 24"),
    ({"scale_rewards": "none"}, "scale_rewards = 'none' contradicts reward.kind = 'fapo', .* as 'group'"),
    ({"num_iterations": 2}, "num_iterations = 2 contradicts optim.updates_per_batch = 1"),
    ({"max_steps": 7}, "max_steps = 7 contradicts optim.steps = 6"),
    ({"num_train_epochs": 2}, "num_train_epochs = 2 contradicts optim.steps = 6"),
    ({"learning_rate": 1e-6}, "learning_rate = 1e-06 contradicts optim.learning_rate = 0.001"),
    ({"warmup_ratio": 0.1}, "warmup_ratio = 0.1 contradicts optim.warmup_steps = 10"),
    ({"adam_beta2": 0.95}, r"adam_beta2 = 0.95 contradicts optim.betas = \(0.9, 0.999\), .* as 0.999"),
    ({"epsilon_high": 0.4}, "epsilon_high = 0.4 contradicts optim.clip_high = 0.28"),
    ({"generation_kwargs": {"temperature": 0.5}}, "generation_kwargs.temperature = 0.5 contradicts rollout.temper"),
    ({"delta": 10.0}, "delta = 10.0 contradicts optim.clip_dual = None"),
    ({"bf16": True}, "bf16 = True contradicts model.dtype = 'float32', .* as False"),
    ({"fp16": True}, "fp16 = True contradicts model.dtype"),
    ({"reward_weights": [2.0]}, r"reward_weights = \[2.0\] contradicts reward.kind"),
    ({"eval_steps": 1}, "eval_steps = 1 contradicts validation.every = 10"),
    (
        {"logging_strategy": "epoch"},
        "logging_strategy = 'epoch' contradicts optim.updates_per_batch = 1, .* as 'steps'",
    ),
    ({"logging_first_step": True}, "logging_first_step = True contradicts optim.updates_per_batch = 1, .* as False"),
    ({"save_steps": 1}, "save_steps = 1 contradicts validation.save_every = 10"),
    ({"generation_batch_size": 64}, "generation_batch_size = 64 contradicts rollout.num_prompts = 8, .* as 32"),
]


@pytest.mark.parametrize(("trl", "message"), CONTRADICTIONS, ids=[next(iter(trl)) for trl, _ in CONTRADICTIONS])
def test_the_trl_table_may_not_contradict_the_config(trl: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^\[trl\]: {message}.*; remove it from \[trl\], and set "):
        grpo_config(config(tmp_path, trl=trl))


def test_the_trl_table_may_repeat_the_config(tmp_path: Path) -> None:
    same = {"num_generations": 4, "max_completion_length": 24, "scale_rewards": "group", "learning_rate": 1e-3}
    assert grpo_config(config(tmp_path, trl=same)) is not None


def test_every_owned_argument_exists_and_has_a_setting(tmp_path: Path) -> None:
    settled = config(tmp_path)
    table = dict(flatten(to_dict(settled)))
    arguments = {f.name for f in fields(GRPOConfig)} | {"warmup_ratio"}  # an argument of transformers 4
    for argument, owner in OWNERS.items():
        assert argument.partition(".")[0] in arguments
        assert owner in table, owner


def test_imitation_may_not_contradict_the_config_either(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"max_steps = 7 contradicts optim\.steps = 6"):
        sft_config(config(tmp_path, method="sft", trl={"max_steps": 7}))


@pytest.mark.parametrize(("world_size", "micro_batch", "accumulation"), [(1, 32, 1), (2, 16, 1), (4, 8, 1)])
def test_processes_divide_a_batch(world_size: int, micro_batch: int, accumulation: int, tmp_path: Path) -> None:
    found = grpo_config(config(tmp_path), world_size)
    assert (found.per_device_train_batch_size, found.gradient_accumulation_steps) == (micro_batch, accumulation)
    with pytest.raises(ConfigError, match="does not divide"):
        grpo_config(config(tmp_path, micro_batch=32), world_size * 3)


@pytest.mark.parametrize(("method", "own"), [("rl", "num_generations"), ("sft", "completion_only_loss")])
def test_a_dry_run_shows_the_arguments_of_the_trainer_of_the_method(method: str, own: str, tmp_path: Path) -> None:
    found = dry_run(config(tmp_path, method=method))
    assert (found["max_steps"], found["learning_rate"]) == (6, 1e-3)
    assert own in found
    assert None not in found.values()


def test_the_learning_rate_rises_with_each_update_as_under_verl(tmp_path: Path) -> None:
    """tests/verl/test_overrides.py has the other half."""
    table = to_dict(config(tmp_path))
    table["optim"] |= {key.removeprefix("optim."): value for key, value in parity.WARMUP.items()}
    arguments = grpo_config(from_dict(table))
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=arguments.learning_rate)
    scheduler = get_scheduler(arguments.lr_scheduler_type, optimizer, arguments.warmup_steps, arguments.max_steps)
    rates = []
    for _ in parity.RATES:
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx(parity.RATES)


@pytest.mark.parametrize(("dtype", "computes"), [("float32", False), ("mixed", True), ("bfloat16", True)])
def test_precision_of_weights_and_computation(dtype: str, computes: bool, tmp_path: Path) -> None:
    """tests/verl/test_overrides.py has the other half."""
    run = from_dict(to_dict(config(tmp_path)) | {"model": {"path": "miniature:policy", "dtype": dtype}})
    assert grpo_config(run).bf16 == computes
    assert load_model(run)[0].dtype == (torch.bfloat16 if dtype == "bfloat16" else torch.float32)
