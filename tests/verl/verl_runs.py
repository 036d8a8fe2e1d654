"""Complete runs of verl's on the CPU: settings and environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "src"


def environment(folder: Path, **more: str) -> dict[str, str]:
    """What a run of verl's needs to find the CPU platform and to keep to itself."""
    own = {
        "VERL_PLATFORM": "cpu",
        "VERL_ENGINE_DEVICE": "cuda",  # picks verl's stock FSDP engine
        "VERL_USE_EXTERNAL_MODULES": "cpu.platform,cpu.rollout",
        "VERL_FILE_LOGGER_PATH": str(folder / "verl.jsonl"),
        "PYTHONPATH": f"{SOURCE}{os.pathsep}{HERE}",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "RAY_TMPDIR": "/tmp",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_prestart_worker_first_driver": "0",
        "RAY_worker_register_timeout_seconds": "900",
        "HYDRA_FULL_ERROR": "1",
    }
    inherited = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    return {**inherited, **own, **more}


def on_cpu(ranks: int = 1) -> dict[str, Any]:
    """The [verl] table that makes a run of a small model fit this machine."""
    actor, sampler = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
    return {
        "trainer.device": "cpu",
        "trainer.n_gpus_per_node": ranks,
        "trainer.logger": ["console", "file"],
        "+ray_kwargs.ray_init.num_gpus": ranks,
        "ray_kwargs.ray_init.num_cpus": 4 + 4 * ranks,
        "+ray_kwargs.ray_init.include_dashboard": False,
        "transfer_queue.backend.SimpleStorage.num_data_storage_units": 1,
        "data.max_prompt_length": 256,
        "data.dataloader_num_workers": 0,
        "data.filter_overlong_prompts": False,
        "actor_rollout_ref.model.external_lib": "cpu.process_group",
        "actor_rollout_ref.model.use_remove_padding": False,
        "+actor_rollout_ref.model.override_config.attn_implementation": "sdpa",
        f"{actor}.strategy": "fsdp2",
        f"{actor}.use_torch_compile": False,
        f"{actor}.fsdp_config.use_torch_compile": False,
        f"{actor}.fsdp_config.dtype": "float32",
        f"{sampler}.name": "cpu",
        f"{sampler}.tensor_model_parallel_size": 1,
        f"{sampler}.dtype": "float32",
        f"{sampler}.free_cache_engine": False,
        f"{sampler}.calculate_log_probs": True,
        f"{sampler}.load_format": "auto",
        f"{sampler}.agent.num_workers": 1,
        f"{sampler}.checkpoint_engine.update_weights_bucket_megabytes": 64,
        "reward.num_workers": 1,
    }
