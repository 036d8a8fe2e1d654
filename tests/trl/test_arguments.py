"""Arguments of TRL's trainers for a config."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fapo.config.reader import from_dict
from fapo.config.schema import Config
from fapo.errors import ConfigError
from fapo.trl.arguments import dry_run, grpo_config


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


def test_settings_of_the_trl_table_win(tmp_path: Path) -> None:
    plain = grpo_config(config(tmp_path))
    assert (plain.loss_type, plain.epsilon, plain.epsilon_high, plain.beta) == ("dapo", 0.2, 0.28, 0.0)
    changed = grpo_config(config(tmp_path, trl={"loss_type": "grpo", "epsilon_high": 0.4}))
    assert (changed.loss_type, changed.epsilon_high) == ("grpo", 0.4)
    with pytest.raises(ConfigError, match=r"\[trl\]: .*nonsense"):
        grpo_config(config(tmp_path, trl={"nonsense": 1}))


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
