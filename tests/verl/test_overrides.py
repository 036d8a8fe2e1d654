"""The overrides for verl, composed and checked by verl's own code."""

from __future__ import annotations

import math
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync
from verl.utils.checkpoint.checkpoint_manager import get_checkpoint_tracker_filename
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.import_utils import load_extern_object
from verl.workers.config.optimizer import build_optimizer

import fapo.training.run_folder
from fapo.config.flatten import flatten
from fapo.config.paths import shipped_configs
from fapo.config.reader import load
from fapo.config.schema import Config, LoraConfig, known_keys
from fapo.errors import ConfigError
from fapo.verl.overrides import OWNERS, compose, literal, overrides
from fapo.verl.recorder import RecordingBuffer
from fapo.verl.train import command
from tests.support import parity

ROOT = Path(__file__).parents[2]
POLICY = ROOT / "src/fapo/data/miniature/configs/policy.toml"
FOR_TRL = {"gpu_24gb": 'judge.kind "adapter"', "gpu_24gb_judge": "model.lora.save"}
"""Config -> setting that verl refuses."""
CONFIGS = [name for name in shipped_configs() if name not in FOR_TRL]


def shipped(path: str | Path, monkeypatch: pytest.MonkeyPatch, *changed: str) -> Config:
    monkeypatch.chdir(ROOT)
    return load(path, changed)


@pytest.mark.parametrize("name", CONFIGS)
def test_verl_accepts_every_config_with_the_same_meaning(name: str, monkeypatch) -> None:
    config = shipped(name, monkeypatch, "optim.updates_per_batch=2", "optim.micro_batch_size=2")
    theirs = compose(overrides(config))
    actor, sampler = theirs.actor_rollout_ref.actor, theirs.actor_rollout_ref.rollout
    prompts, group = config.rollout.num_prompts, config.rollout.group_size
    assert (theirs.data.train_batch_size, sampler.n) == (prompts, group)
    assert actor.ppo_mini_batch_size * 2 == prompts
    assert (sampler.temperature, sampler.top_p) == (config.rollout.temperature, config.rollout.top_p)
    assert sampler.response_length == config.rollout.max_tokens
    assert (actor.clip_ratio_low, actor.clip_ratio_high) == (config.optim.clip_low, config.optim.clip_high)
    assert theirs.data.max_prompt_length == config.data.max_prompt_tokens
    assert actor.optim.lr == config.optim.learning_rate
    assert (actor.optim.weight_decay, actor.grad_clip) == (config.optim.weight_decay, config.optim.max_grad_norm)
    assert (actor.loss_agg_mode, actor.use_kl_loss, theirs.algorithm.use_kl_in_reward) == ("token-mean", False, False)
    assert theirs.algorithm.adv_estimator == "fapo"
    overlong = theirs.reward.reward_kwargs.overlong_buffer_cfg
    assert (overlong.enable, overlong.len) == (config.reward.overlong_buffer > 0, config.reward.overlong_buffer)
    assert sampler.val_kwargs.n == config.validation.num_samples
    assert theirs.trainer.total_training_steps == config.optim.steps
    assert theirs.critic.enable is False


@pytest.mark.parametrize("name", FOR_TRL)
def test_recipes_with_an_adapter_judge_are_refused(name: str, monkeypatch) -> None:
    with pytest.raises(ConfigError, match=f"^{FOR_TRL[name]} is for --engine trl"):
        overrides(shipped(name, monkeypatch))


def test_settings_of_the_verl_table_win_where_the_config_has_none(monkeypatch) -> None:
    table = {
        "data": {"shuffle": False, "seed": 0},
        "trainer.resume_mode": "auto",
        "+reward.reward_kwargs.overlong_buffer_cfg.log": True,
        "actor_rollout_ref": {"rollout.name": "sglang"},
    }
    theirs = compose(overrides(replace(shipped(POLICY, monkeypatch), verl=table)))
    assert (theirs.data.shuffle, theirs.data.seed, theirs.trainer.resume_mode) == (False, 0, "auto")
    assert theirs.reward.reward_kwargs.overlong_buffer_cfg.log
    assert theirs.actor_rollout_ref.rollout.name == "sglang"


CONTRADICTIONS = [
    ({"data": {"seed": 7}}, "data.seed = 7 contradicts seed = 0"),
    ({"data.max_prompt_length": 99}, "data.max_prompt_length = 99 contradicts data.max_prompt_tokens = 2048"),
    ({"actor_rollout_ref": {"rollout.n": 4}}, "actor_rollout_ref.rollout.n = 4 contradicts rollout.group_size = 8"),
    ({"actor_rollout_ref.actor.clip_ratio_c": 3.0}, "contradicts optim.clip_dual = None"),
    ({"actor_rollout_ref.actor.ppo_epochs": 2}, "contradicts optim.updates_per_batch = 1, .* as 1"),
    ({"actor_rollout_ref.rollout.dtype": "bfloat16"}, "contradicts model.dtype = 'float32'"),
    (
        {"+reward.reward_kwargs.max_resp_len": 9},
        r"\+reward.reward_kwargs.max_resp_len = 9 contradicts rollout.max_tokens",
    ),
    ({"algorithm.adv_estimator": "grpo"}, "contradicts reward.kind = 'fapo', .* as 'fapo'"),
]


@pytest.mark.parametrize(("table", "message"), CONTRADICTIONS, ids=[str(table) for table, _ in CONTRADICTIONS])
def test_the_verl_table_may_not_contradict_the_config(table: dict[str, Any], message: str, monkeypatch) -> None:
    with pytest.raises(ConfigError, match=rf"^\[verl\]: .*{message}.*; remove it from \[verl\], and set "):
        overrides(replace(shipped(POLICY, monkeypatch), verl=table))


def test_adapters_are_those_of_verl(monkeypatch) -> None:
    config = shipped(POLICY, monkeypatch)

    merged = {"actor_rollout_ref.model.lora.merge": True}  # without it verl's check imports vLLM

    def with_lora(**settings: Any) -> list[str]:
        return overrides(replace(config, verl=merged, model=replace(config.model, lora=LoraConfig(**settings))))

    model = compose(with_lora(rank=8, target_modules=("q_proj", "v_proj"))).actor_rollout_ref.model
    assert (model.lora_rank, model.lora_alpha, list(model.target_modules)) == (8, 32, ["q_proj", "v_proj"])
    assert compose(with_lora()).actor_rollout_ref.model.target_modules == "all-linear"
    assert compose(overrides(config)).actor_rollout_ref.model.lora_rank == 0
    for name, value in (("dropout", 0.1), ("save", "adapter")):
        with pytest.raises(ConfigError, match=f"model.lora.{name} is for --engine trl"):
            with_lora(**{name: value})
    with pytest.raises(
        ConfigError, match=r"model.lora.quantization is for --engine trl: verl has no weights in 4 bits"
    ):
        with_lora(quantization="4bit", save="adapter")


def test_the_owners_are_settings_and_keys_of_the_overrides(monkeypatch) -> None:
    config = shipped(POLICY, monkeypatch)
    config = replace(config, model=replace(config.model, lora=LoraConfig()))
    given = {override.partition("=")[0].lstrip("+") for override in overrides(config)}
    assert OWNERS.keys() <= given
    assert set(OWNERS.values()) <= set(known_keys())


MISTAKES = {
    "unknown key": ({"trainer.nnodez": 2}, "nnodez"),
    "unknown loss": ({"actor_rollout_ref.actor.loss_agg_mode": "nonsense"}, "loss_agg_mode"),
    "unknown advantages": ({"algorithm.adv_estimator": "nonsense"}, "nonsense"),
    "unknown reward manager": ({"reward.reward_manager.name": "nonsense"}, "nonsense"),
    "the older trainer": ({"trainer.use_v1": False}, "use_v1 must be true"),
    "devices for rollouts": ({"trainer.v1.trainer_mode": "separate_async"}, "parts of a batch .* use sync or coloc"),
    "a judge between rollout and update": ({"reward.reward_model.enable": True}, "enable_resource_pool = true"),
    "validations in parts": ({"data.val_batch_size": 4}, "val_batch_size divides a validation"),
    "steps in parts": ({"+trainer.v1.sync.parameter_sync_step": 4}, "v1.sync.parameter_sync_step divides a step"),
    "asynchronous steps in parts": (
        {"trainer.v1.trainer_mode": "colocate_async", "+trainer.v1.colocate_async.parameter_sync_step": 4},
        "v1.colocate_async.parameter_sync_step divides a step",
    ),
    "groups that verl would not filter": ({"algorithm.filter_groups.enable": True}, "filters groups in its own"),
    "groups that verl would not replace": (
        {"trainer.v1.sampler.sync_refill_failed_groups": True},
        "replaces failed groups in its own",
    ),
    "a mode that is no text": ({"trainer.v1.trainer_mode": [1]}, r'trainer_mode "\[1\]" is not supported'),
    "batch for other GPUs": ({"trainer.n_gpus_per_node": 7}, "must be divisible"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_verl_does_not_accept_is_told_before_anything_starts(name: str, monkeypatch) -> None:
    table, said = MISTAKES[name]
    config = replace(shipped(POLICY, monkeypatch), verl=table)
    with pytest.raises(ConfigError, match=rf"\[verl\][\s\S]*{said}"):
        command(config)


def test_updates_take_whole_groups(monkeypatch) -> None:
    config = shipped(POLICY, monkeypatch, "rollout.num_prompts=6", "optim.updates_per_batch=4")
    with pytest.raises(ConfigError, match="does not divide the 6 prompts"):
        overrides(config)


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("saved", [False, True])
def test_a_run_that_continues_from_a_checkpoint_does_not_validate_again(
    resume: bool, saved: bool, monkeypatch, tmp_path: Path
) -> None:
    config = shipped(POLICY, monkeypatch, f'output="{tmp_path}"')
    if saved:
        tracker = Path(get_checkpoint_tracker_filename(f"{tmp_path}/fapo/checkpoints"))
        tracker.parent.mkdir(parents=True)
        tracker.write_text("1")
    theirs = compose(overrides(config, resume=resume)).trainer
    assert (theirs.resume_mode, theirs.val_before_train) == ("auto" if resume else "disable", not (resume and saved))


@pytest.mark.parametrize(("enable", "workers"), [(False, 1), (True, 8)])
def test_a_judge_that_verl_serves(enable: bool, workers: int, monkeypatch) -> None:
    config = shipped(POLICY, monkeypatch)
    table = {
        "reward.reward_model.enable": enable,
        "reward.reward_model.enable_resource_pool": enable,
        "reward.reward_model.nnodes": 1,
        "reward.reward_model.rollout.name": "vllm",
    }
    theirs = compose(overrides(replace(config, verl=table)))
    assert theirs.reward.num_workers == workers
    path = theirs.reward.reward_model.model_path
    assert (path is not None and path.endswith("base/genrm")) == enable
    assert theirs.reward.reward_model.rollout.free_cache_engine == (not enable), "a judge that sleeps does not answer"


@pytest.mark.parametrize(("mode", "buffer"), [("sync", ReplayBuffer), ("colocate_async", ReplayBufferAsync)])
def test_each_mode_of_the_trainer_has_its_recording_buffer(mode: str, buffer: type, monkeypatch) -> None:
    table = {"trainer.v1.trainer_mode": mode}
    sampler = compose(overrides(replace(shipped(POLICY, monkeypatch), verl=table))).trainer.v1.sampler.custom_sampler
    found = load_extern_object(sampler.path, sampler.name)
    assert issubclass(found, buffer)
    assert found.sample.__qualname__ == RecordingBuffer.sample.__qualname__
    assert issubclass(found, ReplayBufferAsync) == (mode != "sync")


def test_a_shell_can_run_the_printed_command(monkeypatch, tmp_path: Path) -> None:
    config = shipped(POLICY, monkeypatch, f'output="{tmp_path}/a b"')
    program, flag, module, *given = shlex.split(command(config))
    assert (program, flag, module) == ("python", "-m", "verl.trainer.main_ppo")
    assert compose(given).trainer.default_local_dir == f"{tmp_path}/a b/fapo/checkpoints"
    assert list(tmp_path.iterdir()) == []


SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**9), 10**9),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="ascii", exclude_categories=["Cc"])),
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3), max_leaves=6)


@given(VALUES)
def test_hydra_reads_every_value_back(value: Any) -> None:
    assert OverridesParser.create().parse_override(f"a.b={literal(value)}").value() == value


def test_tables_become_dotted_keys() -> None:
    assert dict(flatten({"a": {"b": {"c": 1}, "d.e": 2}, "+f.g": {}})) == {"a.b.c": 1, "a.d.e": 2, "+f.g": {}}


@pytest.mark.parametrize("dual", [None, 10.0])
def test_the_dual_clip_is_that_of_trl(dual: float | None, monkeypatch) -> None:
    """tests/trl/test_trainer.py has the other half."""
    config = shipped(POLICY, monkeypatch, *([f"optim.clip_dual={dual}"] if dual else []))
    actor = omega_conf_to_dataclass(compose(overrides(config)).actor_rollout_ref.actor)
    for ratio, advantage in parity.CLIPPED:
        one = torch.ones(1, 1)
        loss, _ = compute_policy_loss_vanilla(0 * one, one * math.log(ratio), one * advantage, one, config=actor)
        assert loss.item() == pytest.approx(parity.clipped_loss(ratio, advantage, 0.2, 0.28, dual), rel=1e-4)


def test_the_learning_rate_rises_with_each_update_as_under_trl(monkeypatch) -> None:
    """tests/trl/test_arguments.py has the other half."""
    settings = [f"{key}={value}" for key, value in parity.WARMUP.items()]
    optim = compose(overrides(shipped(POLICY, monkeypatch, *settings))).actor_rollout_ref.actor.optim
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer, rates = build_optimizer([weight], omega_conf_to_dataclass(optim)), []
    for update in range(len(parity.RATES)):
        if update == 3:  # the run is resumed from a checkpoint
            state = optimizer.state_dict()
            optimizer = build_optimizer([weight], omega_conf_to_dataclass(optim))
            optimizer.load_state_dict(state)
        before, weight.grad = weight.item(), torch.ones(1)
        optimizer.step()
        rates.append(before - weight.item())  # Adam moves by its learning rate where all gradients are equal
    assert rates == pytest.approx(parity.RATES, rel=1e-3, abs=1e-9)
    assert optimizer.param_groups[0]["lr"] == 1e-3
    assert (optim.betas, optim.weight_decay) == ([0.9, 0.999], 0.0)


PRECISIONS = {
    "float32": ("fp32", "fp32", "float32", "sdpa"),
    "mixed": ("fp32", "bf16", "bfloat16", None),
    "bfloat16": ("bf16", "bf16", "bfloat16", None),
}


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_precision_of_weights_computation_and_rollouts(dtype: str, monkeypatch) -> None:
    theirs = compose(overrides(shipped(POLICY, monkeypatch, f"model.dtype={dtype}"))).actor_rollout_ref
    engine = theirs.actor.fsdp_config
    attention = theirs.model.override_config.get("attn_implementation")
    found = engine.model_dtype, engine.mixed_precision.param_dtype, theirs.rollout.dtype, attention
    assert found == PRECISIONS[dtype]


def test_a_cache_that_several_nodes_would_share_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cache = ["judge.kind=local", "judge.model=miniature:genrm", f'judge.cache="{tmp_path}/cache.sqlite"']
    nodes = "verl.trainer.nnodes=2"
    monkeypatch.setattr(fapo.training.run_folder, "shared_file_system", lambda path: "nfs4")
    overrides(load(POLICY, cache))
    overrides(load(POLICY, [*cache[:2], nodes]))
    with pytest.raises(ConfigError, match=r"judge\.cache: .*\(nfs4\) that several nodes may share"):
        overrides(load(POLICY, [*cache, nodes]))
