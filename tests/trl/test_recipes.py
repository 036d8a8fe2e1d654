"""The recipe for a GPU of 24 GB: a judge as an adapter, then the policy with it, here on weights of the miniature."""

from __future__ import annotations

from pathlib import Path

import pytest

from fapo.config.reader import load
from fapo.data.jsonl import read_jsonl
from fapo.trl.train import train

SMALL = [
    *("model.path=miniature:genrm", "data.validation={}", "data.max_prompt_tokens=400", "rollout.num_prompts=4"),
    *("rollout.group_size=4", "rollout.max_tokens=64", "reward.overlong_buffer=0", "optim.steps=1"),
]
"""The judge's adapter must be one of the policy's weights, so both are the miniature's GenRM."""


@pytest.mark.slow
def test_the_judge_of_the_first_recipe_judges_in_the_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train(load("gpu_24gb_judge", [*SMALL, "data.train=miniature:critic-train", "genrm.template=compact"]))

    policy = ["data.train=miniature:train", "data.prompt=", "judge.template=compact", "judge.max_tokens=80"]
    for kind in ("fapo", "outcome"):
        run = train(load("gpu_24gb", [*SMALL, *policy, "judge.all=true", f"reward.kind={kind}", f"name={kind}"]))
        rows = list(read_jsonl(run / "rollouts.jsonl"))
        assert len(rows) == 16
        assert {row["status"] for row in rows} == {"ok"}
        for row in rows:
            lowered = kind == "fapo" and row["flawed"]
            assert row["reward"] == (-1.0 if not row["correct"] else 0.0 if lowered else 1.0)
        assert (run / "model" / "model.safetensors").is_file()
