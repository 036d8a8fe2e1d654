"""A config as Hydra overrides for verl, checked by verl's own code."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from fapo.config.backend import check_backend, verl_devices
from fapo.config.flatten import flatten
from fapo.config.schema import (
    AdapterJudge,
    Config,
    FirstErrorReward,
    GroupReward,
    JudgeRequests,
    LocalJudge,
    LoraConfig,
    PRMJudge,
)
from fapo.errors import ConfigError
from fapo.inference.adapters import adapter_base
from fapo.inference.models import model_folder
from fapo.training.run_folder import with_cache
from fapo.verl.datasets import parquet_files

PROGRAM = "verl.trainer.main_ppo"
"""Module of verl that runs as a program."""
_DTYPES = {"float32": ("fp32", "fp32"), "mixed": ("fp32", "bf16"), "bfloat16": ("bf16", "bf16")}
"""`model.dtype` -> precision of the weights, precision of the computation, under verl's names."""
_LONG_NAMES = {"fp32": "float32", "bf16": "bfloat16"}
_NO_DUAL_CLIP = 1e9
"""Limit that no probability ratio reaches: verl clips it at exp(20) itself, and its dual clip cannot be turned off."""
AGENT_LOOPS = str(resources.files("fapo.verl") / "agent_loops.yaml")
"""File that puts our loop with tools in the place of verl's."""
AGENT_LOOP_NAMES = ("single_turn_agent", "tool_agent")
"""Values of verl's `default_agent_loop`: with one turn; with tools."""
_MODE = "trainer.v1.trainer_mode"
_BUFFERS = {"sync": "RecordingBuffer", "colocate_async": "AsyncRecordingBuffer"}
"""Mode of verl's trainer -> class in `fapo.verl.recorder`."""
_MODEL = "actor_rollout_ref.model"
_ACTOR, _SAMPLER = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
_FUNCTION, _KWARGS = "reward.custom_reward_function", "reward.reward_kwargs"
OWNERS = {
    "data.train_files": "data.train",
    "data.val_files": "data.validation",
    "data.max_prompt_length": "data.max_prompt_tokens",
    "data.filter_overlong_prompts": "data.max_prompt_tokens",
    "data.train_batch_size": "rollout.num_prompts",
    "data.max_response_length": "rollout.max_tokens",
    "data.seed": "seed",
    f"{_MODEL}.path": "model.path",
    f"{_MODEL}.lora_rank": "model.lora.rank",
    f"{_MODEL}.lora_alpha": "model.lora.alpha",
    f"{_MODEL}.target_modules": "model.lora.target_modules",
    f"{_SAMPLER}.n": "rollout.group_size",
    f"{_SAMPLER}.temperature": "rollout.temperature",
    f"{_SAMPLER}.top_p": "rollout.top_p",
    f"{_SAMPLER}.seed": "seed",
    f"{_SAMPLER}.dtype": "model.dtype",
    f"{_SAMPLER}.val_kwargs.n": "validation.num_samples",
    f"{_SAMPLER}.val_kwargs.temperature": "validation.temperature",
    f"{_SAMPLER}.val_kwargs.top_p": "validation.top_p",
    f"{_SAMPLER}.val_kwargs.do_sample": "validation.temperature",
    f"{_ACTOR}.ppo_mini_batch_size": "optim.updates_per_batch",
    f"{_ACTOR}.ppo_epochs": "optim.updates_per_batch",
    f"{_ACTOR}.ppo_micro_batch_size_per_gpu": "optim.micro_batch_size",
    f"{_ACTOR}.data_loader_seed": "seed",
    f"{_ACTOR}.clip_ratio": "optim.clip_low",
    f"{_ACTOR}.clip_ratio_low": "optim.clip_low",
    f"{_ACTOR}.clip_ratio_high": "optim.clip_high",
    f"{_ACTOR}.clip_ratio_c": "optim.clip_dual",
    f"{_ACTOR}.grad_clip": "optim.max_grad_norm",
    f"{_ACTOR}.optim.lr": "optim.learning_rate",
    f"{_ACTOR}.optim.lr_warmup_steps": "optim.warmup_steps",
    f"{_ACTOR}.optim.override_optimizer_config.warmup_updates": "optim.warmup_steps",
    f"{_ACTOR}.optim.weight_decay": "optim.weight_decay",
    f"{_ACTOR}.optim.betas": "optim.betas",
    f"{_ACTOR}.fsdp_config.model_dtype": "model.dtype",
    f"{_ACTOR}.fsdp_config.mixed_precision.param_dtype": "model.dtype",
    "algorithm.adv_estimator": "reward.kind",
    "algorithm.norm_adv_by_std_in_grpo": "reward.kind",
    f"{_FUNCTION}.path": "reward.kind",
    f"{_FUNCTION}.name": "reward.kind",
    "reward.reward_manager.name": "reward.overlong_buffer",
    f"{_KWARGS}.max_resp_len": "rollout.max_tokens",
    f"{_KWARGS}.overlong_buffer_cfg.enable": "reward.overlong_buffer",
    f"{_KWARGS}.overlong_buffer_cfg.len": "reward.overlong_buffer",
    f"{_KWARGS}.overlong_buffer_cfg.penalty_factor": "reward.overlong_buffer",
    "trainer.experiment_name": "name",
    "trainer.total_training_steps": "optim.steps",
    "trainer.total_epochs": "optim.steps",
    "trainer.save_freq": "validation.save_every",
    "trainer.test_freq": "validation.every",
    "trainer.val_before_train": "validation.every",
    "trainer.default_local_dir": "output",
}
"""verl's key -> setting of the config that it follows from; [verl] may not contradict it, and sets the others."""
_BARE = re.compile(r"(?![\d.+-])(?!(?:null|true|false|nan|inf)\b)[\w./:@+-]+", re.IGNORECASE)


def overrides(config: Config, *, resume: bool = False) -> list[str]:
    """Return the overrides of a run; [verl] sets those that do not follow from the config.

    Args:
        config: Config of the run, with absolute paths.
        resume: Whether an interrupted run continues from its last checkpoint.

    Returns:
        Overrides, each key=value.

    Raises:
        ConfigError: If a setting does not exist under verl, or [verl] contradicts the config.
    """
    table = dict(flatten(config.verl))
    in_table = {key.lstrip("+") for key in table}
    settings = _settings(config, table, resume)
    check_backend(config, "verl", {key.lstrip("+"): value for key, value in settings.items()}, OWNERS)
    derived = {key: value for key, value in settings.items() if key.lstrip("+") not in in_table}
    return [f"{key}={literal(value)}" for key, value in {**derived, **table}.items()]


def _settings(config: Config, table: Mapping[str, Any], resume: bool) -> dict[str, Any]:
    """Return verl's settings that follow from the config; a key with + does not exist in verl's files."""
    rollout, optim, validation, reward = config.rollout, config.optim, config.validation, config.reward
    if reward is None:
        raise ConfigError('method "sft" runs with --engine trl only; verl is for reinforcement learning')
    folder = Path(config.output) / config.name
    train_file, *validation_files = parquet_files(config, folder / "data")
    if adapter_base(model_folder(config.model.path)):
        raise ConfigError(
            f"model.path: {config.model.path} is an adapter; verl needs whole weights: save it with "
            'model.lora.save = "merged", or merge it with peft'
        )
    if rollout.num_prompts % optim.updates_per_batch:
        raise ConfigError(
            f"optim.updates_per_batch does not divide the {rollout.num_prompts} prompts of a batch: verl's updates "
            "take whole groups; change it or rollout.num_prompts"
        )
    num_nodes, gpus_per_node = verl_devices(config)
    with_cache(config, num_nodes=num_nodes)  # refuses a cache that the nodes would share
    per_update = rollout.num_prompts * rollout.group_size // optim.updates_per_batch
    micro_batch = optim.micro_batch_size or max(1, per_update // (num_nodes * gpus_per_node))
    if isinstance(config.judge, AdapterJudge):
        raise ConfigError(
            'judge.kind "adapter" is for --engine trl: verl\'s reward workers do not have the weights of the policy; '
            'use "local" or "served"'
        )
    for end, judge in config.judge.parts if config.judge else ():
        if isinstance(judge, PRMJudge) and not judge.urls:
            raise ConfigError(
                f"judge{end}.urls is missing: verl's reward workers load no process reward model; serve it with vLLM"
            )
        if end and isinstance(judge, LocalJudge):
            raise ConfigError(
                f'judge{end}.kind "local" is for --engine trl: verl serves a single judge, and a cascade has two; use '
                '"served"'
            )
        if isinstance(judge, JudgeRequests) and not judge.overlap:
            raise ConfigError(f"judge{end}.overlap is for --engine trl: verl judges each rollout as it ends; remove it")
    local_judge = config.judge if isinstance(config.judge, LocalJudge) else None
    actor, sampler, function, extra = _ACTOR, _SAMPLER, _FUNCTION, f"+{_KWARGS}"
    weights, computation = _DTYPES[config.model.dtype]
    has_checkpoint = (folder / "checkpoints/latest_checkpointed_iteration.txt").exists()  # verl's name
    out: dict[str, Any] = {
        "data.train_files": str(train_file),
        "data.val_files": [str(path) for path in validation_files or [train_file]],
        "data.train_batch_size": rollout.num_prompts,
        "data.max_prompt_length": config.data.max_prompt_tokens,
        "data.max_response_length": rollout.max_tokens,
        "data.filter_overlong_prompts": False,  # `fapo.training.datasets` has done it
        "data.truncation": "error",
        "data.seed": config.seed,
        f"{_MODEL}.path": model_folder(config.model.path),
        f"{sampler}.name": "vllm",
        f"{sampler}.n": rollout.group_size,
        f"{sampler}.temperature": rollout.temperature,
        f"{sampler}.top_p": rollout.top_p,
        f"{sampler}.seed": config.seed,
        f"{sampler}.val_kwargs.n": validation.num_samples,
        f"{sampler}.val_kwargs.temperature": validation.temperature,
        f"{sampler}.val_kwargs.top_p": validation.top_p,
        f"{sampler}.val_kwargs.do_sample": validation.temperature > 0,
        f"{sampler}.log_prob_micro_batch_size_per_gpu": micro_batch,
        f"{actor}.ppo_mini_batch_size": rollout.num_prompts // optim.updates_per_batch,
        f"{actor}.ppo_micro_batch_size_per_gpu": micro_batch,
        f"{actor}.ppo_epochs": 1,
        f"{actor}.data_loader_seed": config.seed,
        f"{actor}.clip_ratio": optim.clip_low,
        f"{actor}.clip_ratio_low": optim.clip_low,
        f"{actor}.clip_ratio_high": optim.clip_high,
        f"{actor}.clip_ratio_c": optim.clip_dual or _NO_DUAL_CLIP,
        f"{actor}.loss_agg_mode": "token-mean",
        f"{actor}.use_kl_loss": False,
        f"{actor}.entropy_coeff": 0,
        f"{actor}.grad_clip": optim.max_grad_norm,
        f"{actor}.optim.lr": optim.learning_rate,
        f"{actor}.optim.lr_scheduler_type": "constant",
        f"{actor}.optim.lr_warmup_steps": 0,
        f"{actor}.optim.optimizer_impl": "fapo.verl.optimizer",
        f"{actor}.optim.optimizer": "WarmupAdamW",
        f"+{actor}.optim.override_optimizer_config.warmup_updates": optim.warmup_steps * optim.updates_per_batch,
        f"{actor}.optim.weight_decay": optim.weight_decay,
        f"{actor}.optim.betas": list(optim.betas),
        f"{actor}.fsdp_config.model_dtype": weights,
        f"+{actor}.fsdp_config.mixed_precision.param_dtype": computation,
        f"{sampler}.dtype": _LONG_NAMES[computation],
        "critic.enable": False,
        "algorithm.adv_estimator": "fapo_tokens" if isinstance(reward, FirstErrorReward) else "fapo",
        "algorithm.norm_adv_by_std_in_grpo": not isinstance(reward, GroupReward),
        "algorithm.use_kl_in_reward": False,
        f"{function}.path": "pkg://fapo.verl.reward",
        f"{function}.name": "compute_score",
        f"+{function}.reward_kwargs.config": str(folder / "config.json"),
        f"+{function}.reward_kwargs.num_workers": "${reward.num_workers}",
        f"+{function}.reward_kwargs.recorded": True,
        "reward.num_workers": 1 if local_judge else 8,  # each worker would load the judge
        "reward.reward_manager.source": "importlib",
        "reward.reward_manager.module.path": "pkg://fapo.verl.conversations",
        "reward.reward_manager.name": "ConversationRewardManager",  # verl's "dapo", with messages
        f"{sampler}.agent.agent_loop_config_path": AGENT_LOOPS,
        f"{extra}.max_resp_len": rollout.max_tokens,
        f"{extra}.overlong_buffer_cfg.enable": reward.overlong_buffer > 0,
        f"{extra}.overlong_buffer_cfg.len": reward.overlong_buffer,
        f"{extra}.overlong_buffer_cfg.penalty_factor": 1.0,
        f"{extra}.overlong_buffer_cfg.log": False,
        "trainer.v1.sampler.custom_sampler.path": "pkg://fapo.verl.recorder",
        "trainer.v1.sampler.custom_sampler.name": _BUFFERS.get(str(table.get(_MODE, "sync")), "RecordingBuffer"),
        "+trainer.v1.sampler.sampler_kwargs.config": str(folder / "config.json"),
        # without it, the queue's storage may be placed on a head node without a processor, where it can never start
        "+transfer_queue.backend.SimpleStorage.required_node_resource": "CPU",
        "trainer.project_name": "fapo",
        "trainer.experiment_name": config.name,
        "trainer.logger": ["console"],
        "trainer.total_training_steps": optim.steps,
        "trainer.total_epochs": optim.steps,  # an epoch has at least one step
        "trainer.save_freq": validation.save_every,
        "trainer.test_freq": validation.every if validation_files else -1,
        "trainer.val_before_train": bool(validation_files) and not (resume and has_checkpoint),
        "trainer.max_actor_ckpt_to_keep": 2,
        "trainer.default_local_dir": str(folder / "checkpoints"),
        "trainer.resume_mode": "auto" if resume else "disable",
        "hydra.run.dir": str(folder / "hydra"),
    }
    if config.model.lora:
        out |= _lora(config.model.lora)
    if computation == "fp32":  # flash attention, and with it batches without padding, cannot compute in float32
        out |= {
            f"+{_MODEL}.override_config.attn_implementation": "sdpa",
            f"{_MODEL}.use_remove_padding": False,
        }
    if local_judge and table.get("reward.reward_model.enable"):
        out |= {
            "reward.num_workers": 8,
            "reward.reward_model.model_path": model_folder(local_judge.model),
            "reward.reward_model.rollout.free_cache_engine": False,  # verl would put the judge to sleep for ever
        }
    return out


def _lora(lora: LoraConfig) -> dict[str, Any]:
    """Return verl's settings of an adapter. Raise ConfigError for those that verl does not have."""
    if lora.quantization:
        raise ConfigError("model.lora.quantization is for --engine trl: verl has no weights in 4 bits; remove it")
    if lora.dropout:
        raise ConfigError("model.lora.dropout is for --engine trl: verl's adapters have none; remove it")
    if lora.save != "merged":
        raise ConfigError(
            "model.lora.save is for --engine trl: verl writes checkpoints only, from which verl.model_merger makes "
            "base model and adapter; remove it"
        )
    targets = lora.target_modules
    return {
        f"{_MODEL}.lora_rank": lora.rank,
        f"{_MODEL}.lora_alpha": lora.alpha,
        f"{_MODEL}.target_modules": targets[0] if targets == ("all-linear",) else list(targets),
    }


def literal(value: Any) -> str:
    """Return a value in the grammar of Hydra's overrides."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{literal(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(literal, value)) + "]"
    if not isinstance(value, str) or _BARE.fullmatch(value):
        return str(value)
    quoted = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)
    return f"'{quoted}'"


def compose(arguments: list[str]) -> Any:
    """Return verl's complete configuration with overrides, checked as verl checks it when it starts.

    Raises ConfigError if verl is not installed, or refuses a setting.
    """
    try:
        from hydra import compose as hydra_compose
        from hydra import initialize_config_dir
        from hydra.errors import HydraException
        from omegaconf.errors import OmegaConfBaseException
        from verl.trainer.ppo.core_algos import get_adv_estimator_fn
        from verl.trainer.ppo.reward import get_custom_reward_fn, resolve_reward_manager_cls
        from verl.trainer.ppo.utils import need_critic, need_reference_policy
        from verl.utils.config import omega_conf_to_dataclass, validate_config
        from verl.utils.import_utils import load_extern_object
    except ImportError as error:
        raise ConfigError(
            f"--engine verl needs verl 0.9.1 in an environment of its own, which `make test-verl` sets up ({error})"
        ) from None
    folder = str(resources.files("verl.trainer") / "config")
    try:
        with initialize_config_dir(folder, version_base=None), contextlib.redirect_stdout(io.StringIO()):
            settings = hydra_compose("ppo_trainer", overrides=arguments)
            validate_config(settings, need_reference_policy(settings), need_critic(settings))
            omega_conf_to_dataclass(settings.actor_rollout_ref.rollout)
            omega_conf_to_dataclass(settings.algorithm)
            sampler = settings.trainer.v1.sampler.custom_sampler
            if sampler.path:
                load_extern_object(sampler.path, sampler.name)  # this also registers the estimator "fapo"
            get_adv_estimator_fn(settings.algorithm.adv_estimator)
            get_custom_reward_fn(settings)
            resolve_reward_manager_cls(settings)
            _check(settings)
    except (HydraException, OmegaConfBaseException, AssertionError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"[verl]: {error}; change or remove the setting") from None
    return settings


def _check(settings: Any) -> None:
    """Raise ValueError for settings that verl accepts, but `fapo.verl.recorder` cannot work with."""
    trainer, model = settings.trainer, settings.reward.reward_model
    if not trainer.use_v1:
        raise ValueError("trainer.use_v1 must be true, because fapo records the run in the replay buffer of v1")
    if str(trainer.v1.trainer_mode) not in _BUFFERS:
        raise ValueError(
            f'trainer.v1.trainer_mode "{trainer.v1.trainer_mode}" is not supported: it trains on parts of a batch that '
            "are not whole steps, and its rollouts need devices of their own with NCCL, where fapo has never run; use "
            + " or ".join(_BUFFERS)
        )
    if settings.data.val_batch_size is not None:
        raise ValueError(
            "data.val_batch_size divides a validation, and fapo measures whole ones: each part would count as a "
            "validation of its own; leave it out"
        )
    if trainer.v1.get(trainer.v1.trainer_mode, {}).get("parameter_sync_step", 1) != 1:
        raise ValueError(
            f"trainer.v1.{trainer.v1.trainer_mode}.parameter_sync_step divides a step, and fapo records whole ones: "
            "each part would count as a step of its own; leave it out, and set optim.updates_per_batch for several "
            "updates"
        )
    if (settings.algorithm.filter_groups or {}).get("enable"):
        raise ValueError(
            "algorithm.filter_groups.enable: verl filters groups in its own replay buffer only, and fapo records the "
            "run in another one; leave it out"
        )
    if trainer.v1.sampler.sync_refill_failed_groups:
        raise ValueError(
            "trainer.v1.sampler.sync_refill_failed_groups: verl replaces failed groups in its own replay buffer only, "
            "and fapo records the run in another one; leave it out"
        )
    if model.enable and not model.enable_resource_pool:
        raise ValueError(
            "reward.reward_model without its own pool of GPUs judges after the rollouts, not at the same time; "
            "set reward.reward_model.enable_resource_pool = true, n_gpus_per_node and nnodes"
        )
    agent = settings.actor_rollout_ref.rollout.agent
    if agent.default_agent_loop not in AGENT_LOOP_NAMES or agent.agent_loop_config_path != AGENT_LOOPS:
        raise ValueError(
            "actor_rollout_ref.rollout.agent: the judge sees the turns of the agent loops "
            f"{' and '.join(AGENT_LOOP_NAMES)} only; leave agent_loop_config_path out, and choose one of them"
        )
