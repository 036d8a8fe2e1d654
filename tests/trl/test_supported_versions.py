"""The lines of the README and a run of `fapo train` with the installed TRL; `make test-trl` installs other versions."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from datasets import Dataset
from trl import GRPOConfig

from fapo.config.reader import from_dict
from fapo.data import load_problems
from fapo.data.jsonl import read_jsonl
from fapo.inference.models import model_folder
from fapo.rewards.advantages import group_advantages
from fapo.trl import accuracy_reward, flawed_aware_reward
from fapo.trl.train import train
from tests.support.chat_server import Reply, chat_server
from tests.support.trl_trainer import TRAINS, UsableTrainer

pytestmark = pytest.mark.slow
GROUP = 8


def judge(body: dict[str, Any], index: int) -> Reply:
    """Fail for every third request, answer nonsense for the next one, and find no flaw in the rest."""
    return (Reply(status=400), Reply("I cannot tell."), Reply("\\boxed{-1}"))[index % 3]


def test_the_five_lines_leave_a_rollout_without_a_verdict_out_of_its_group(tmp_path: Path) -> None:
    problems = load_problems("miniature:train", limit=16)
    dataset = Dataset.from_list(
        [{"prompt": [{"role": "user", "content": p.text}], "reference": p.reference} for p in problems]
    )
    arguments = GRPOConfig(
        output_dir=str(tmp_path),
        max_steps=2,
        logging_steps=1,
        max_completion_length=64,
        per_device_train_batch_size=8 * GROUP,
        num_generations=GROUP,
        log_completions=True,
        num_completions_to_print=0,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        bf16=False,
        disable_tqdm=True,
    )
    with chat_server(judge) as server:
        reward = flawed_aware_reward(server.url, model="genrm", penalty=1.0, max_failure_rate=1.0)
        trainer = UsableTrainer(
            model=str(model_folder("miniature:policy")), reward_funcs=reward, train_dataset=dataset, args=arguments
        )
        trainer.train()
        assert server.requests
    tables = [pd.read_parquet(file) for file in sorted((tmp_path / "completions").glob("*.parquet"))]
    logs = [row for row in trainer.state.log_history if "reward" in row]
    assert len(tables) == len(logs) == 2
    for table, log in zip(tables, logs, strict=True):
        rewards, advantages = table.fapo_reward.to_numpy(float), table.advantage.to_numpy()
        unscored = np.isnan(rewards)
        assert {"failed", "unparsable"} <= set(table.status[unscored])
        assert (advantages[unscored] == 0).all()
        assert advantages == pytest.approx(group_advantages(rewards.reshape(-1, GROUP)).reshape(-1), abs=1e-4)
        counted_as_0 = group_advantages(np.nan_to_num(rewards).reshape(-1, GROUP)).reshape(-1)
        assert np.abs(advantages - counted_as_0)[~unscored].max() > 0.1, "the baseline of its group would differ"
        assert log["reward"] == log["rewards/fapo_reward/mean"] == pytest.approx(np.nanmean(rewards))
        assert log["fapo/unscored_rate"] == unscored.mean()
        assert math.isfinite(log["loss"])


def test_a_partial_with_a_checker_is_a_reward_function(tmp_path: Path) -> None:
    reward = functools.partial(accuracy_reward, checker="exact")
    reward.__name__ = "accuracy_reward"  # type: ignore[attr-defined]
    trainer = UsableTrainer(
        model=str(model_folder("miniature:policy")),
        reward_funcs=reward,
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": "1+1?"}], "solution": "2"}] * GROUP),
        args=GRPOConfig(output_dir=str(tmp_path), report_to="none", use_cpu=True, bf16=False),
    )
    assert trainer.reward_func_names == ["accuracy_reward"]


@pytest.mark.skipif(not TRAINS, reason="this TRL cannot train on a CPU")
def test_fapo_train_runs(tmp_path: Path) -> None:
    with chat_server(judge) as server:
        config = from_dict(
            {
                "name": "run",
                "task": "policy",
                "output": str(tmp_path),
                "model": {"path": "miniature:policy"},
                "data": {"train": "miniature:train", "limit": 64, "validation": {"easy": "miniature:validation"}},
                "rollout": {"max_tokens": 64, "num_prompts": 8, "group_size": GROUP},
                "reward": {"kind": "fapo"},
                "judge": {"kind": "served", "urls": [server.url], "model": "genrm", "max_failure_rate": 1.0},
                "optim": {"steps": 2, "learning_rate": 1e-4},
                "validation": {"every": 2, "limit": 16},
            }
        )
        folder = train(config)
    steps = [row for row in read_jsonl(folder / "metrics.jsonl") if row["kind"] == "train"]
    assert [row["step"] for row in steps] == [1, 2]
    assert all(row[f"time/{part}"] > 0 for row in steps for part in ("rollout", "score", "update"))
    rows = [row for row in read_jsonl(folder / "rollouts.jsonl") if row["split"] == "train"]
    rewards = np.array([math.nan if row["reward"] is None else row["reward"] for row in rows]).reshape(-1, GROUP)
    assert np.isnan(rewards).any()
    assert [row["advantage"] for row in rows] == pytest.approx(group_advantages(rewards).reshape(-1), abs=1e-4)
