"""A config as verl's Hydra overrides, checked by verl's own code."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from fapo.config.flatten import flatten
from fapo.config.schema import Config, LocalJudge, ServedJudge
from fapo.errors import ConfigError
from fapo.inference.models import model_folder
from fapo.verl.datasets import files

MODULE = "verl.trainer.main_ppo"
"""The program of verl's that is started."""
_DTYPES = {"float32": "fp32", "bfloat16": "bf16"}
_GPUS = ("trainer.n_gpus_per_node", 8), ("trainer.nnodes", 1)
"""verl's own defaults."""
_BARE = re.compile(r"(?![\d.+-])(?!(?:null|true|false|nan|inf)\b)[\w./:@+-]+", re.IGNORECASE)


def overrides(config: Config, *, resume: bool = False) -> list[str]:
    """The overrides of a run, key=value; the [verl] table has the last word."""
    table = dict(flatten(config.verl))
    given = {key.lstrip("+"): key for key in table}
    own = {key: value for key, value in settings(config, table, resume).items() if key.lstrip("+") not in given}
    return [f"{key}={literal(value)}" for key, value in {**own, **table}.items()]


def settings(config: Config, table: Mapping[str, Any], resume: bool) -> dict[str, Any]:
    """Verl's settings that follow from ours; a + adds a key that verl's files do not have."""
    rollout, optim, val, reward = config.rollout, config.optim, config.validation, config.reward
    if reward is None:
        raise ConfigError('method "sft" runs with --engine trl only; verl is for reinforcement learning')
    folder = Path(config.output) / config.name
    train, *validation = files(config, folder / "data")
    if rollout.num_prompts % optim.updates_per_batch:
        raise ConfigError(
            f"optim.updates_per_batch does not divide the {rollout.num_prompts} prompts of a batch: verl's updates "
            "take whole groups; change it or rollout.num_prompts"
        )
    num_devices = 1
    for key, default in _GPUS:
        num_devices *= int(table.get(key, default))
    share = rollout.num_prompts * rollout.group_size // optim.updates_per_batch
    micro = optim.micro_batch_size or max(1, share // num_devices)
    if isinstance(config.judge, ServedJudge) and not config.judge.overlap:
        raise ConfigError("judge.overlap is for --engine trl: verl judges each rollout as it ends; remove it")
    judge_here = config.judge if isinstance(config.judge, LocalJudge) else None
    actor, sampler = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
    function, extra = "reward.custom_reward_function", "+reward.reward_kwargs"
    out: dict[str, Any] = {
        "data.train_files": str(train),
        "data.val_files": [str(path) for path in validation or [train]],
        "data.train_batch_size": rollout.num_prompts,
        "data.max_prompt_length": 2048,
        "data.max_response_length": rollout.max_tokens,
        "data.filter_overlong_prompts": True,
        "data.seed": config.seed,
        "actor_rollout_ref.model.path": model_folder(config.model.path),
        f"{sampler}.name": "vllm",
        f"{sampler}.n": rollout.group_size,
        f"{sampler}.temperature": rollout.temperature,
        f"{sampler}.top_p": rollout.top_p,
        f"{sampler}.seed": config.seed,
        f"{sampler}.val_kwargs.n": val.num_samples,
        f"{sampler}.val_kwargs.temperature": val.temperature,
        f"{sampler}.val_kwargs.top_p": val.top_p,
        f"{sampler}.val_kwargs.do_sample": val.temperature > 0,
        f"{sampler}.log_prob_micro_batch_size_per_gpu": micro,
        f"{actor}.ppo_mini_batch_size": rollout.num_prompts // optim.updates_per_batch,
        f"{actor}.ppo_micro_batch_size_per_gpu": micro,
        f"{actor}.data_loader_seed": config.seed,
        f"{actor}.clip_ratio": optim.clip_low,
        f"{actor}.clip_ratio_low": optim.clip_low,
        f"{actor}.clip_ratio_high": optim.clip_high,
        f"{actor}.loss_agg_mode": "token-mean",
        f"{actor}.use_kl_loss": False,
        f"{actor}.entropy_coeff": 0,
        f"{actor}.grad_clip": optim.max_grad_norm,
        f"{actor}.optim.lr": optim.learning_rate,
        f"{actor}.optim.lr_scheduler_type": "constant",
        f"{actor}.optim.lr_warmup_steps": optim.warmup_steps,  # verl's scheduler steps once a generation batch
        f"{actor}.optim.weight_decay": optim.weight_decay,
        f"{actor}.optim.betas": list(optim.betas),
        f"{actor}.fsdp_config.model_dtype": _DTYPES[config.model.dtype],
        "critic.enable": False,
        "algorithm.adv_estimator": "fapo",
        "algorithm.norm_adv_by_std_in_grpo": True,
        "algorithm.use_kl_in_reward": False,
        f"{function}.path": "pkg://fapo.verl.reward",
        f"{function}.name": "compute_score",
        f"+{function}.reward_kwargs.config": str(folder / "config.json"),
        f"+{function}.reward_kwargs.num_workers": "${reward.num_workers}",
        "reward.num_workers": 1 if judge_here else 8,  # each would load the judge
        "reward.reward_manager.name": "dapo",
        f"{extra}.max_resp_len": rollout.max_tokens,
        f"{extra}.overlong_buffer_cfg.enable": reward.overlong_buffer > 0,
        f"{extra}.overlong_buffer_cfg.len": reward.overlong_buffer,
        f"{extra}.overlong_buffer_cfg.penalty_factor": 1.0,
        f"{extra}.overlong_buffer_cfg.log": False,
        "trainer.v1.sampler.custom_sampler.path": "pkg://fapo.verl.recorder",
        "trainer.v1.sampler.custom_sampler.name": "RecordingBuffer",
        "+trainer.v1.sampler.sampler_kwargs.config": str(folder / "config.json"),
        "trainer.project_name": "fapo",
        "trainer.experiment_name": config.name,
        "trainer.logger": ["console"],
        "trainer.total_training_steps": optim.steps,
        "trainer.total_epochs": optim.steps,  # at least one step an epoch
        "trainer.save_freq": val.save_every,
        "trainer.test_freq": val.every if validation else -1,
        "trainer.val_before_train": bool(validation) and not resume,
        "trainer.max_actor_ckpt_to_keep": 2,
        "trainer.default_local_dir": str(folder / "checkpoints"),
        "trainer.resume_mode": "auto" if resume else "disable",
        "hydra.run.dir": str(folder / "hydra"),
    }
    if judge_here and table.get("reward.reward_model.enable"):
        out |= {
            "reward.num_workers": 8,
            "reward.reward_model.model_path": model_folder(judge_here.model),
            "reward.reward_model.rollout.free_cache_engine": False,  # verl would put it to sleep, and never wake it
        }
    return out


def literal(value: Any) -> str:
    """A value in the grammar of Hydra's overrides."""
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


def compose(given: list[str]) -> Any:
    """Verl's whole config with the overrides in it, checked as verl checks it when it starts. Raises ConfigError."""
    try:
        from hydra import compose, initialize_config_dir
        from hydra.errors import HydraException
        from omegaconf.errors import OmegaConfBaseException
        from verl.trainer.ppo.core_algos import get_adv_estimator_fn
        from verl.trainer.ppo.reward import get_custom_reward_fn, resolve_reward_manager_cls
        from verl.trainer.ppo.utils import need_critic, need_reference_policy
        from verl.utils.config import omega_conf_to_dataclass, validate_config
        from verl.utils.import_utils import load_extern_object
    except ImportError as error:
        raise ConfigError(
            f"--engine verl needs verl 0.9.1 in an environment of its own: make test-verl shows how "
            f"it is set up ({error})"
        ) from None
    folder = str(resources.files("verl.trainer") / "config")
    try:
        with initialize_config_dir(folder, version_base=None), contextlib.redirect_stdout(io.StringIO()):
            settings = compose("ppo_trainer", overrides=given)
            validate_config(settings, need_reference_policy(settings), need_critic(settings))
            omega_conf_to_dataclass(settings.actor_rollout_ref.rollout)
            omega_conf_to_dataclass(settings.algorithm)
            sampler = settings.trainer.v1.sampler.custom_sampler
            if sampler.path:
                load_extern_object(sampler.path, sampler.name)  # which also brings our estimator
            get_adv_estimator_fn(settings.algorithm.adv_estimator)
            get_custom_reward_fn(settings)
            resolve_reward_manager_cls(settings)
            _check(settings)
    except (HydraException, OmegaConfBaseException, AssertionError, ValueError, TypeError) as error:
        raise ConfigError(f"[verl]: {error}") from None
    return settings


def _check(settings: Any) -> None:
    """What verl would take, but `fapo.verl.recorder` cannot work with."""
    trainer, model = settings.trainer, settings.reward.reward_model
    if not trainer.use_v1 or trainer.v1.trainer_mode != "sync":
        raise ValueError('trainer.use_v1 must be true and trainer.v1.trainer_mode "sync"; leave them out')
    if model.enable and not model.enable_resource_pool:
        raise ValueError(
            "reward.reward_model without a pool of its own judges after the rollouts, not beside them; "
            "set reward.reward_model.enable_resource_pool = true, n_gpus_per_node and nnodes"
        )
