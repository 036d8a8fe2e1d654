"""Training a GenRM by imitation of critiques, and training it with label noise."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fapo.config.reader import from_dict
from fapo.config.sampling import Sampling
from fapo.data.jsonl import read_jsonl, write_jsonl
from fapo.data.miniature.sets import BASE_FOLDER, CONFIG_FOLDER
from fapo.data.problems import read_labelled
from fapo.errors import ConfigError
from fapo.judge.genrm import GenRM
from fapo.judge.template import load_template
from fapo.judge.verdicts import parse_verdict
from fapo.training.critic_data.label_noise import with_label_noise
from fapo.training.select_checkpoint import candidates, choose
from fapo.trl.sft import train as train_sft
from fapo.trl.train import train as train_rl
from fapo.types import Rollout
from tests.support.command_line import fapo
from tests.support.interrupted_run import interrupted

Row = dict[str, Any]
STEPS = 24


def settings(output: Path, genrm: Path, train: Path | str, **changed: Any) -> Row:
    table: Row = {
        "name": "run",
        "task": "genrm",
        "output": str(output),
        "model": {"path": str(genrm)},
        "data": {"train": str(train), "validation": {"test": "miniature:critic-test"}},
        "rollout": {"max_tokens": 16, "num_prompts": 8, "group_size": 2},
        "method": "rl" if "reward" in changed else "sft",
        "genrm": {"template": "compact"},
        "optim": {"steps": STEPS, "learning_rate": 1e-2, "warmup_steps": 0},
        "validation": {"every": STEPS // 2, "save_every": STEPS // 2, "limit": 24, "temperature": 0.0},
    }
    for key, value in changed.items():
        table[key] = {**table.get(key, {}), **value} if isinstance(value, dict) else value
    return table


@pytest.fixture(scope="module")
def uncritical(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write solutions of the miniature with a critique that finds no error, which is easy to imitate."""
    file = tmp_path_factory.mktemp("data") / "sft.jsonl"
    rows = list(read_jsonl(BASE_FOLDER / "critic-train.jsonl"))[:64]
    write_jsonl(file, [row | {"label": -1, "critique": "answer \\boxed{-1}"} for row in rows])
    return file


@pytest.fixture(scope="module")
def sft_run(tiny_genrm: Path, uncritical: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("sft")
    steps: list[int] = []
    folder = train_sft(
        from_dict(settings(output, tiny_genrm, uncritical)), progress=lambda _, step, *rest: steps.append(step)
    )
    assert steps == list(range(1, STEPS + 1))
    return folder


def test_a_genrm_learns_to_write_the_critiques_of_its_data(sft_run: Path, uncritical: Path) -> None:
    from fapo.inference.transformers_model import LocalModel

    model = LocalModel.load(str(sft_run / "model"), Sampling(max_tokens=16))
    (solution,) = read_labelled(uncritical, limit=1)
    judge = GenRM(load_template("compact"), model)
    (verdict,) = asyncio.run(judge([Rollout(solution.problem, "\n\n".join(solution.steps))]))
    assert verdict.critique == "answer \\boxed{-1}", "the whole critique, and nothing after it"
    metrics = list(read_jsonl(sft_run / "metrics.jsonl"))
    losses = [row["loss"] for row in metrics if row["kind"] == "train"]
    assert len(losses) == STEPS
    assert losses[-1] < losses[0] / 4


def test_the_run_folder_has_the_files_of_every_run(sft_run: Path) -> None:
    assert {path.name for path in sft_run.iterdir()} == {
        *("config.json", "prompts.json", "env.json", "metrics.jsonl", "rollouts.jsonl", "checkpoints", "model"),
    }
    metrics = [row for row in read_jsonl(sft_run / "metrics.jsonl") if row["kind"] == "validation"]
    assert [row["step"] for row in metrics] == [0, STEPS // 2, STEPS]
    assert all(
        {f"test/{name}" for name in ("f1", "precision", "recall", "location", "tokens")} <= row.keys()
        for row in metrics
    )
    rollouts = list(read_jsonl(sft_run / "rollouts.jsonl"))
    assert Counter((row["split"], row["step"]) for row in rollouts) == {
        ("test", step): 24 for step in (0, STEPS // 2, STEPS)
    }
    for row in rollouts:
        verdict = parse_verdict(row["response"], 99)
        if row["status"] == "ok":
            assert row["error_step"] == verdict.error_step
            right = row["flawed"] == (row["truth"]["error_step"] is not None)
            assert row["parts"]["outcome"] == (1 if right else -1)


def test_a_resumed_run_has_the_metrics_of_an_uninterrupted_one(
    sft_run: Path, tiny_genrm: Path, uncritical: Path, tmp_path: Path
) -> None:
    def values(folder: Path) -> list[tuple[int, str, float | None]]:
        rows = read_jsonl(folder / "metrics.jsonl")
        return [(row["step"], row["kind"], row.get("loss", row.get("test/tokens"))) for row in rows]

    config = from_dict(settings(tmp_path, tiny_genrm, uncritical))
    interrupted(train_sft, config, STEPS // 2 + 2)
    folder = train_sft(config, resume=True)
    assert [row[:2] for row in values(folder)] == [row[:2] for row in values(sft_run)]
    assert [row[2] for row in values(folder)] == pytest.approx([row[2] for row in values(sft_run)], rel=1e-4, abs=1e-6)


def test_data_without_critiques_cannot_be_imitated(tiny_genrm: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no critique; fapo critiques makes such data"):
        train_sft(from_dict(settings(tmp_path, tiny_genrm, "miniature:critic-train", data={"limit": 8})))
    assert not (tmp_path / "run").exists()


def test_label_noise_reaches_the_reward_but_not_the_measurements(tiny_genrm: Path, tmp_path: Path) -> None:
    changed: Row = {
        "data": {"limit": 40, "label_noise": 0.5},
        "reward": {"kind": "genrm_outcome"},
        "rollout": {"num_prompts": 40},
        "optim": {"steps": 1},
    }
    folder = train_rl(from_dict(settings(tmp_path, tiny_genrm, "miniature:critic-train", **changed)))
    assert json.loads((folder / "config.json").read_text())["data"]["label_noise"] == 0.5
    given = read_labelled(BASE_FOLDER / "critic-train.jsonl", limit=40)
    noisy = {s.problem.id: s.training_label for s in with_label_noise(given, 0.5, 0)}
    labels = {s.problem.id: s.error_step for s in given}
    found = list(read_jsonl(folder / "rollouts.jsonl"))
    trained = [row for row in found if row["split"] == "train"]
    assert len(trained) == 80
    for row in trained:
        assert row["truth"]["error_step"] == labels[row["problem_id"]]
        right = row["status"] == "ok" and row["flawed"] == (noisy[row["problem_id"]] is not None)
        assert row["parts"]["outcome"] == (1 if right else -1)
    with_wrong_label = [
        row for row in trained if (noisy[row["problem_id"]] is None) != (labels[row["problem_id"]] is None)
    ]
    assert any(row["status"] == "ok" for row in with_wrong_label)
    for row in found:
        if row["split"] == "test":
            right = row["status"] == "ok" and row["flawed"] == (row["truth"]["error_step"] is not None)
            assert row["parts"]["outcome"] == (1 if right else -1), "validation uses the labels of the data"


def test_noise_and_validation_on_the_same_rows_exclude_each_other(tiny_genrm: Path, tmp_path: Path) -> None:
    data = {"limit": 20, "label_noise": 0.5, "validation": {"same": "miniature:critic-train"}}
    table = settings(tmp_path, tiny_genrm, "miniature:critic-train", data=data, reward={"kind": "genrm_step"})
    with pytest.raises(ConfigError, match=r"with data\.label_noise validate on other rows"):
        train_rl(from_dict(table))


MISUSES = [
    ({}, "use `fapo critiques --label-noise`"),
    ({"task": "policy", "reward": {"kind": "outcome"}}, 'does nothing with task "policy"; remove it'),
]


@pytest.mark.parametrize(("changed", "message"), MISUSES)
def test_label_noise_without_effect_is_refused(changed: Row, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        table = settings(tmp_path, tmp_path, "x.jsonl", data={"label_noise": 0.1}, **changed)
        from_dict({key: value for key, value in table.items() if key != "genrm"})


def test_a_checkpoint_of_a_trained_run_is_chosen(sft_run: Path) -> None:
    chosen = choose(candidates(sft_run))
    assert chosen.step in (STEPS // 2, STEPS)
    assert chosen.folder is not None
    assert (chosen.folder / "model.safetensors").is_file()


def test_from_labels_to_a_trained_genrm_by_commands(tiny_genrm: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    judge = ["--judge", f"local:{tiny_genrm}", "--template", "compact", "--max-tokens", 8]
    assert (
        fapo(monkeypatch, "critiques", "miniature:critic-train", *judge, "--limit", 40, "-n", 2, "--out", "sft.jsonl")
        == 0
    )
    assert "80 critiques of 40 solutions (0 failed)" in capsys.readouterr().out
    assert all(s.critique for s in read_labelled("sft.jsonl"))
    few = [
        "optim.steps=1",
        "rollout.num_prompts=4",
        "rollout.max_tokens=8",
        "validation.limit=4",
        f"model.path={tiny_genrm}",
    ]
    config = CONFIG_FOLDER / "genrm.toml"
    assert fapo(monkeypatch, "train", config, "method=sft", "data.train=sft.jsonl", *few, "--quiet") == 0
    assert (tmp_path / "runs" / "genrm" / "model" / "model.safetensors").is_file()
