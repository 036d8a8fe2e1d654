"""Arguments of TRL's trainers for a config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from trl import GRPOConfig, SFTConfig

from fapo.config.backend import check_backend
from fapo.config.schema import Config, FirstErrorReward, GroupReward
from fapo.errors import ConfigError
from fapo.rewards.from_config import check_scorer

OWNERS = {
    "output_dir": "output",
    "run_name": "name",
    "seed": "seed",
    "max_steps": "optim.steps",
    "num_train_epochs": "optim.steps",
    "learning_rate": "optim.learning_rate",
    "warmup_steps": "optim.warmup_steps",
    "warmup_ratio": "optim.warmup_steps",
    "weight_decay": "optim.weight_decay",
    "adam_beta1": "optim.betas",
    "adam_beta2": "optim.betas",
    "max_grad_norm": "optim.max_grad_norm",
    "epsilon": "optim.clip_low",
    "epsilon_high": "optim.clip_high",
    "delta": "optim.clip_dual",
    "bf16": "model.dtype",
    "fp16": "model.dtype",
    "per_device_train_batch_size": "optim.micro_batch_size",
    "gradient_accumulation_steps": "optim.micro_batch_size",
    "steps_per_generation": "optim.updates_per_batch",
    "num_iterations": "optim.updates_per_batch",
    "logging_strategy": "optim.updates_per_batch",
    "logging_steps": "optim.updates_per_batch",
    "logging_first_step": "optim.updates_per_batch",
    "generation_batch_size": "rollout.num_prompts",
    "num_generations": "rollout.group_size",
    "max_completion_length": "rollout.max_tokens",
    "temperature": "rollout.temperature",
    "top_p": "rollout.top_p",
    "generation_kwargs.max_new_tokens": "rollout.max_tokens",
    "generation_kwargs.max_tokens": "rollout.max_tokens",
    "generation_kwargs.temperature": "rollout.temperature",
    "generation_kwargs.top_p": "rollout.top_p",
    "scale_rewards": "reward.kind",
    "reward_weights": "reward.kind",
    "multi_objective_aggregation": "reward.kind",
    "eval_strategy": "validation.every",
    "eval_steps": "validation.every",
    "eval_on_start": "validation.every",
    "num_generations_eval": "validation.num_samples",
    "save_steps": "validation.save_every",
}
"""TRL's argument -> setting of the config that it follows from; [trl] may not contradict it, and sets the others."""


def grpo_config(config: Config, world_size: int = 1) -> GRPOConfig:
    """Return the arguments of `trl.GRPOTrainer`; [trl] sets those that do not follow from the config.

    Args:
        config: Config of the run.
        world_size: Number of processes that train.

    Returns:
        TRL's record of arguments.

    Raises:
        ConfigError: If TRL refuses an argument, [trl] contradicts the config, or the micro-batches do not divide the
            rollouts of an update.
    """
    rollout, optim, validation = config.rollout, config.optim, config.validation
    if isinstance(config.reward, FirstErrorReward) and config.trl.get("use_liger_kernel"):
        raise ConfigError(
            '[trl]: use_liger_kernel has one advantage for all tokens of a rollout, and reward.kind "first_error" has '
            "several; remove it"
        )
    arguments = _common_arguments(config, world_size)
    micro_batch = arguments["per_device_train_batch_size"]
    num_samples = validation.num_samples
    arguments |= {
        "steps_per_generation": arguments["gradient_accumulation_steps"] * optim.updates_per_batch,
        "num_iterations": 1,
        "num_generations": rollout.group_size,
        "max_completion_length": rollout.max_tokens,
        "temperature": rollout.temperature,
        "top_p": rollout.top_p,
        "loss_type": "dapo",
        "scale_rewards": "none" if isinstance(config.reward, GroupReward) else "group",
        "beta": 0.0,
        "epsilon": optim.clip_low,
        "epsilon_high": optim.clip_high,
        "delta": optim.clip_dual,
        "vllm_importance_sampling_correction": False,
        "eval_strategy": "steps" if config.data.validation else "no",
        "eval_steps": validation.every * optim.updates_per_batch,
        "num_generations_eval": num_samples,
        "per_device_eval_batch_size": (128 if micro_batch >= 64 else micro_batch) * num_samples,
    }
    follows = {
        "generation_batch_size": rollout.num_prompts * rollout.group_size,
        "generation_kwargs.max_new_tokens": rollout.max_tokens,
        "generation_kwargs.max_tokens": rollout.max_tokens,
        "generation_kwargs.temperature": rollout.temperature,
        "generation_kwargs.top_p": rollout.top_p,
        "reward_weights": [1.0],
        "multi_objective_aggregation": "sum_then_normalize",
    }
    return _checked(GRPOConfig, config, arguments, follows)


def sft_config(config: Config) -> SFTConfig:
    """Return the arguments of `trl.SFTTrainer`; [trl] sets those that do not follow from the config.

    Raises ConfigError if TRL refuses an argument, [trl] contradicts the config, or the micro-batches do not divide the
    critiques of an update.
    """
    arguments = _common_arguments(config) | {"completion_only_loss": True, "max_length": None, "packing": False}
    return _checked(SFTConfig, config, arguments)


def dry_run(config: Config) -> dict[str, Any]:
    """Return the arguments of the trainer that a config uses, as a table. Raises ConfigError."""
    check_scorer(config)
    arguments = sft_config(config) if config.method == "sft" else grpo_config(config)
    table = {key: value for key, value in asdict(arguments).items() if value is not None}
    return {key: getattr(value, "value", value) for key, value in table.items()}


def _common_arguments(config: Config, world_size: int = 1) -> dict[str, Any]:
    """Return the arguments that both trainers have: optimizer, batches, checkpoints."""
    rollout, optim, validation = config.rollout, config.optim, config.validation
    updates = optim.updates_per_batch
    per_update = rollout.num_prompts * rollout.group_size // updates
    micro_batch = optim.micro_batch_size or per_update // world_size
    if per_update % (micro_batch * world_size):
        raise ConfigError(
            f"optim.micro_batch_size {micro_batch} x {world_size} processes does not divide the {per_update} rollouts "
            "of an update; choose a divisor"
        )
    return {
        "output_dir": str(Path(config.output) / config.name / "checkpoints"),
        "seed": config.seed,
        "per_device_train_batch_size": micro_batch,
        "gradient_accumulation_steps": per_update // (micro_batch * world_size),
        "max_steps": optim.steps * updates,
        "learning_rate": optim.learning_rate,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": optim.warmup_steps * updates,
        "weight_decay": optim.weight_decay,
        "adam_beta1": optim.betas[0],
        "adam_beta2": optim.betas[1],
        "max_grad_norm": optim.max_grad_norm,
        "bf16": config.model.dtype != "float32",
        "fp16": False,
        "gradient_checkpointing": False,
        "logging_strategy": "steps",
        "logging_steps": updates,
        "logging_first_step": False,
        "save_steps": validation.save_every * updates,
        "save_total_limit": 2,
        "eval_on_start": bool(config.data.validation),
        "report_to": "none",
        "run_name": config.name,
        "use_cpu": not torch.cuda.is_available(),
        "disable_tqdm": True,
    }


def _checked(kind: Any, config: Config, arguments: dict[str, Any], follows: Mapping[str, Any] | None = None) -> Any:
    """Return TRL's record of arguments, with those of the [trl] table in it; `follows` are arguments left to TRL."""
    absent = {"num_train_epochs": None, "warmup_ratio": None}  # the run is measured in steps
    check_backend(config, "trl", {**arguments, **absent, **(follows or {})}, OWNERS)
    try:
        return kind(**{**arguments, **config.trl})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"[trl]: {error}; change or remove the setting") from None
