"""Complete runs of verl on the CPU: settings and environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fapo.data.jsonl import read_jsonl
from tests.support.paths import ROOT, SOURCE

POLICY = SOURCE / "fapo/data/miniature/configs/policy.toml"
GENRM = POLICY.with_name("genrm.toml")
GROUP, PROMPTS, VALIDATION = 4, 4, 4
Row = dict[str, Any]


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return the environment of a run: the CPU platform, and a Ray cluster of its own."""
    own = {
        "VERL_PLATFORM": "cpu",
        "VERL_ENGINE_DEVICE": "cuda",  # selects verl's own FSDP engine
        "VERL_USE_EXTERNAL_MODULES": "cpu.platform,cpu.rollout",
        "VERL_FILE_LOGGER_PATH": str(folder / "verl.jsonl"),
        "PYTHONPATH": f"{SOURCE}{os.pathsep}{ROOT / 'tests' / 'verl'}",  # the package `cpu` is there
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


def on_cpu(ranks: int = 1, nodes: int = 0) -> dict[str, Any]:
    """Return a [verl] table for small models on this machine, with `ranks` on each of `nodes` of a cluster, if any."""
    actor, sampler = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
    ray_here = {
        "+ray_kwargs.ray_init.num_gpus": ranks,
        "ray_kwargs.ray_init.num_cpus": 4 + 4 * ranks,
        "+ray_kwargs.ray_init.include_dashboard": False,
    }
    return (ray_here if not nodes else {"trainer.nnodes": nodes}) | {
        "trainer.device": "cpu",
        "trainer.n_gpus_per_node": ranks,
        "trainer.logger": ["console", "file"],
        "transfer_queue.backend.SimpleStorage.num_data_storage_units": 1,
        "data.dataloader_num_workers": 0,
        "actor_rollout_ref.model.external_lib": "cpu.process_group",
        f"{actor}.strategy": "fsdp2",
        f"{actor}.use_torch_compile": False,
        f"{actor}.fsdp_config.use_torch_compile": False,
        f"{sampler}.name": "cpu",
        f"{sampler}.tensor_model_parallel_size": 1,
        f"{sampler}.free_cache_engine": False,
        f"{sampler}.calculate_log_probs": True,
        f"{sampler}.load_format": "auto",
        f"{sampler}.agent.num_workers": 1,
        f"{sampler}.checkpoint_engine.update_weights_bucket_megabytes": 64,
        "reward.num_workers": 1,
    }


def config_on_cpu(base: Path, folder: Path, settings: Mapping[str, Any]) -> Path:
    """Write a config file to `folder`, that of `base` with a [verl] table, and return its path."""
    table = "".join(f'"{key}" = {json.dumps(value)}\n' for key, value in settings.items())
    file = folder / "run.toml"
    file.write_text(base.read_text(encoding="utf-8") + f"\n[verl]\n{table}", encoding="utf-8")
    return file


def start(
    folder: Path,
    *changed: str,
    base: Path = POLICY,
    ranks: int = 1,
    nodes: int = 0,
    steps: int = 2,
    env: dict[str, str] | None = None,
    verl: Mapping[str, Any] | None = None,
) -> subprocess.Popen[str]:
    """Start `fapo train --engine verl` on the CPU. `verl` adds settings to the [verl] table."""
    file = config_on_cpu(base, folder, {**on_cpu(ranks, nodes), **(verl or {})})
    small = [
        *(
            f'output="{folder}"',
            "name=run",
            "data.limit=32",
            "data.max_prompt_tokens=256",
            f"validation.limit={VALIDATION}",
        ),
        *(f"rollout.num_prompts={PROMPTS}", f"rollout.group_size={GROUP}", f"optim.steps={steps}"),
        *("optim.learning_rate=2e-4", "optim.warmup_steps=0", "validation.every=2", "validation.save_every=1"),
    ]
    command = [sys.executable, "-m", "fapo.cli", "train", str(file), *small, *changed, "--engine", "verl"]
    whole = {**environment(folder), **(env or {})}
    return subprocess.Popen(command, env=whole, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Return exit status and output; a run that does not end is killed."""
    try:
        output = process.communicate(timeout=1800)[0]
    finally:
        process.kill()
    return process.returncode, output


def run(folder: Path, *changed: str, **options: Any) -> str:
    """Do a complete run, with the options of `start`, and return its output."""
    code, output = finish(start(folder, *changed, **options))
    assert code == 0, output[-6000:]
    return output


def rows(folder: Path, name: str) -> list[Row]:
    return list(read_jsonl(folder / f"run/{name}.jsonl"))


def logged(folder: Path) -> list[Row]:
    """Return what verl has logged, one row for each step."""
    return [row["data"] for row in read_jsonl(folder / "verl.jsonl") if "actor/grad_norm" in row["data"]]
