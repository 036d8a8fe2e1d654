"""verl's program with vLLM on the CPU: one server writes the rollouts, another one is the judge behind the router.

`make test-vllm` runs these tests; without vLLM they are skipped.
"""

from __future__ import annotations

import asyncio
import math
import re
from pathlib import Path
from typing import Any

import pytest

from fapo.judge.from_config import command_line_judge, make_judge
from fapo.rewards.policy import fapo_reward
from fapo.types import Problem, Rollout
from tests.support.verl_runs import GROUP, PROMPTS, logged, rows, run
from tests.support.vllm_cpu import ENVIRONMENT as VLLM_ON_CPU
from tests.support.vllm_cpu import MARKS

pytestmark = MARKS

SAMPLER, JUDGE = "actor_rollout_ref.rollout", "reward.reward_model"
CHANGED = ("judge.temperature=0", "data.validation=", "optim.learning_rate=1e-3")
ENVIRONMENT = {
    "VERL_USE_EXTERNAL_MODULES": "cpu.platform,cpu.vllm",
    **VLLM_ON_CPU,
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # both would bind themselves to the same core
    "VLLM_LOGGING_LEVEL": "INFO",  # verl would ask for less
    "RAY_DEDUP_LOGS": "0",
}


def served(table: str) -> dict[str, Any]:
    """Return settings for a model of the miniature in vLLM, with the arithmetic of the model in this process."""
    return {
        f"{table}.name": "vllm",
        f"{table}.dtype": "float32",
        f"{table}.enforce_eager": True,
        f"{table}.free_cache_engine": False,
        f"+{table}.enable_sleep_mode": False,
        f"{table}.tensor_model_parallel_size": 1,
        f"{table}.max_model_len": 512,
        f"{table}.max_num_seqs": 16,
        f"{table}.max_num_batched_tokens": 512,
    }


SETTINGS = {
    **served(SAMPLER),
    **served(f"{JUDGE}.rollout"),
    f"{JUDGE}.enable": True,
    f"{JUDGE}.enable_resource_pool": True,
    f"{JUDGE}.n_gpus_per_node": 1,
    f"{JUDGE}.nnodes": 1,
    f"+{JUDGE}.rollout.engine_kwargs.vllm.enable_log_requests": True,
    "+ray_kwargs.ray_init.num_gpus": 2,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Train two steps, and return the folder and the output."""
    folder = tmp_path_factory.mktemp("vllm")
    return folder, run(folder, *CHANGED, env=ENVIRONMENT, verl=SETTINGS)


def test_vllm_has_the_weights_in_training(finished: tuple[Path, str]) -> None:
    steps = logged(finished[0])
    assert [row["training/global_step"] for row in steps] == [1, 2]
    assert all(math.isfinite(row["actor/grad_norm"]) and math.isfinite(row["actor/pg_loss"]) for row in steps)
    assert all(row["training/rollout_actor_probs_pearson_corr"] > 0.999 for row in steps)


def test_verdicts_are_those_of_the_model_behind_the_router(finished: tuple[Path, str]) -> None:
    folder, output = finished
    found = rows(folder, "rollouts")
    assert len([row for row in found if row["split"] == "train"]) == 2 * PROMPTS * GROUP
    judged = [row for row in found if row["status"] != "skipped"]
    assert len(judged) >= 4
    assert {row["status"] for row in judged} <= {"ok", "unparsable"}
    assert all(row["reward"] == fapo_reward(row["correct"], row["flawed"]) for row in found)

    in_process = make_judge(
        command_line_judge(["local:miniature:genrm"], "", template="compact", temperature=0.0, max_tokens=80)
    )
    rollouts = [Rollout(Problem("", row["problem"], row["reference"]), row["response"]) for row in judged]
    verdicts = asyncio.run(in_process(rollouts))
    assert [row["critique"] for row in judged] == [verdict.critique for verdict in verdicts]

    asked = set(re.findall(r"Received request (chatcmpl-[\w-]+)", output))
    distinct = {(row["problem"], row["reference"], row["response"]) for row in judged}
    assert len(asked) == len(distinct), "one request for each distinct rollout"


def test_the_run_folder_has_the_metrics(finished: tuple[Path, str]) -> None:
    train = [row for row in rows(finished[0], "metrics") if row["kind"] == "train"]
    assert [row["step"] for row in train] == [1, 2]
    assert all({"rollout/accuracy", "rollout/true_rho", "advantage/wrong"} <= row.keys() for row in train)
    assert any("rollout/fp_ratio" in row for row in train)
