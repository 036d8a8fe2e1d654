"""Translate a config into TRL's arguments."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from trl import GRPOConfig

from fapo.config.schema import Config
from fapo.errors import ConfigError


def trainer_arguments(config: Config, world_size: int = 1) -> dict[str, Any]:
    """What each of TRL's trainers is told: optimizer, batches, checkpoints."""
    rollout, optim, val = config.rollout, config.optim, config.validation
    share = rollout.num_prompts * rollout.group_size // optim.updates_per_batch
    micro = optim.micro_batch_size or share // world_size
    if share % (micro * world_size):
        raise ConfigError(
            f"optim.micro_batch_size {micro} x {world_size} processes does not divide the {share} rollouts of an update"
        )
    updates = optim.updates_per_batch
    return {
        "output_dir": str(Path(config.output) / config.name / "checkpoints"),
        "seed": config.seed,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": share // (micro * world_size),
        "max_steps": optim.steps * updates,
        "learning_rate": optim.learning_rate,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": optim.warmup_steps * updates,
        "weight_decay": optim.weight_decay,
        "adam_beta1": optim.betas[0],
        "adam_beta2": optim.betas[1],
        "max_grad_norm": optim.max_grad_norm,
        "bf16": config.model.dtype == "bfloat16",
        "gradient_checkpointing": False,
        "logging_steps": updates,
        "logging_first_step": False,
        "save_steps": val.save_every * updates,
        "save_total_limit": 2,
        "eval_on_start": bool(config.data.validation),
        "report_to": "none",
        "run_name": config.name,
        "use_cpu": not torch.cuda.is_available(),
        "disable_tqdm": True,
    }


def grpo_config(config: Config, world_size: int = 1) -> GRPOConfig:
    """The exact TRL arguments of a run; the [trl] table has the last word."""
    rollout, optim, val = config.rollout, config.optim, config.validation
    arguments = trainer_arguments(config, world_size)
    micro = arguments["per_device_train_batch_size"]
    arguments |= {
        "steps_per_generation": arguments["gradient_accumulation_steps"] * optim.updates_per_batch,
        "num_generations": rollout.group_size,
        "max_completion_length": rollout.max_tokens,
        "temperature": rollout.temperature,
        "top_p": rollout.top_p,
        "loss_type": "dapo",
        "scale_rewards": "group",
        "beta": 0.0,
        "epsilon": optim.clip_low,
        "epsilon_high": optim.clip_high,
        "eval_strategy": "steps" if config.data.validation else "no",
        "eval_steps": val.every * optim.updates_per_batch,
        "num_generations_eval": val.num_samples,
        "per_device_eval_batch_size": 128 * val.num_samples if micro >= 64 else micro * val.num_samples,
    }
    try:
        return GRPOConfig(**{**arguments, **config.trl})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"[trl]: {error}") from None


def dry_run(config: Config, world_size: int = 1) -> dict[str, Any]:
    """What would be given to TRL, as a table."""
    arguments = {key: value for key, value in asdict(grpo_config(config, world_size)).items() if value is not None}
    return {key: getattr(value, "value", value) for key, value in arguments.items()}
