"""The choice of a checkpoint of a GenRM by its validations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fapo.data.jsonl import write_jsonl
from fapo.errors import DataError
from fapo.training.select_checkpoint import candidates, choose
from tests.support.command_line import fapo


def run_folder(
    path: Path, validations: list[tuple[int, float | None, float]], kept: list[int], steps: int = 30
) -> Path:
    """Write a run with these validations (step, F1, tokens) and checkpoints; set b has .1 and 10 tokens more than a."""
    table = {
        "name": "run",
        "task": "genrm",
        "method": "sft",
        "output": str(path),
        "model": {"path": str(path)},
        "data": {"train": "x.jsonl", "validation": {"a": "a.jsonl", "b": "b.jsonl"}},
        "rollout": {"max_tokens": 16},
        "genrm": {"template": "compact"},
        "optim": {"steps": steps, "updates_per_batch": 2, "learning_rate": 1e-2},
    }
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(table))
    rows = []
    for step, f1, tokens in validations:
        numbers = {"a/f1": f1, "b/f1": None if f1 is None else f1 + 0.1, "a/tokens": tokens, "b/tokens": tokens + 10}
        rows.append({"step": step, "kind": "validation", "seconds": 1.0, **numbers})
        rows.append({"step": step, "kind": "train", "seconds": 1.0, "loss": 1.0})
    write_jsonl(path / "metrics.jsonl", rows)
    for step in kept:
        folder = path / "model" if step == steps else path / "checkpoints" / f"checkpoint-{2 * step}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    return path


VALIDATIONS: list[tuple[int, float | None, float]] = [(0, 0.5, 20), (10, 0.7, 30), (20, 0.8, 60), (30, 0.8, 90)]
CHOICES = [
    ([10, 20, 30], None, 20, "the earliest of equal ones"),
    ([10, 20, 30], 65, 20, "5 tokens more on average than in set a"),
    ([10, 20, 30], 64, 10, "over the budget"),
    ([10, 30], None, 30, "step 20 was not kept, and step 30 is as good"),
    ([10, 30], 90, 10, "the one within the budget"),
]


@pytest.mark.parametrize(("kept", "budget", "chosen", "why"), CHOICES)
def test_the_best_checkpoint_within_the_budget(
    kept: list[int], budget: float | None, chosen: int, why: str, tmp_path: Path
) -> None:
    run = run_folder(tmp_path / "run", VALIDATIONS, kept)
    assert choose(candidates(run), budget).step == chosen, why


def test_the_command_prints_the_table_and_the_choice(tmp_path: Path, monkeypatch, capsys) -> None:
    run = run_folder(tmp_path / "run", VALIDATIONS, [10, 30])
    assert fapo(monkeypatch, "select", run, "--max-tokens", 80) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{run / 'checkpoints' / 'checkpoint-20'}\n"
    table = printed.err.splitlines()
    marked = [line.split() for line in table if line.lstrip().startswith(">")]
    assert [cells[:3] for cells in marked] == [[">", "10", "0.750"]]
    assert [line.split()[-1] for line in table if line[:8].split()[:1] == ["0"]] == ["model.path"]
    assert sum(line.rstrip().endswith("not kept") for line in table) == 1
    assert "step 20 was better (F1 0.850), but was not kept" in " ".join(printed.err.split())


def test_a_model_that_was_better_before_the_training_is_named(tmp_path: Path, monkeypatch, capsys) -> None:
    run = run_folder(tmp_path / "run", [(0, 0.9, 20), (10, 0.7, 20), (30, 0.8, 20)], [10, 30])
    assert fapo(monkeypatch, "select", run) == 0
    message = " ".join(capsys.readouterr().err.split())
    assert message.endswith("step 0 was better (F1 0.950): the model before the training, model.path of the config")


def test_one_set_may_decide_alone(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", VALIDATIONS, [10, 20, 30])
    (first, *_) = candidates(run, ("b",))
    assert (first.f1, first.tokens) == (0.6, 30)
    assert choose(candidates(run, ("a",)), 60).step == 20


def test_checkpoints_of_verl_are_models_once_they_are_merged(tmp_path: Path, monkeypatch, capsys) -> None:
    run = run_folder(tmp_path / "run", VALIDATIONS, [])
    shards = {step: run / f"checkpoints/global_step_{step}/actor" for step in (10, 20)}
    for folder in shards.values():
        (folder / "huggingface").mkdir(parents=True)
        (folder / "huggingface/config.json").write_text("{}")

    def merge(step: int) -> str:
        return f"merge it: python -m verl.model_merger merge --backend fsdp --local_dir {shards[step]} --target_dir"

    for tokens, step, f1 in ((90, 20, "0.850"), (60, 10, "0.750")):
        with pytest.raises(DataError, match=rf"step {step} is the best \(F1 {f1}\), {merge(step)} .*/huggingface$"):
            choose(candidates(run), tokens)
    (shards[10] / "huggingface/model.safetensors").touch()
    assert fapo(monkeypatch, "select", run) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{shards[10] / 'huggingface'}\n"
    message = " ".join(printed.err.split())
    assert "not merged" in message
    assert "step 20 was better (F1 0.850), but is not merged; merge it: python -m verl.model_merger merge" in message


def test_an_adapter_of_verl_is_beside_the_base_model(tmp_path: Path) -> None:
    run = run_folder(tmp_path / "run", VALIDATIONS, [])
    table = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(table | {"model": {**table["model"], "lora": {}}}))
    merged = run / "checkpoints/global_step_20/actor/huggingface"
    for folder in (merged, merged / "lora_adapter"):
        folder.mkdir(parents=True)
        (folder / "model.safetensors").touch()
    assert choose(candidates(run)).folder == merged / "lora_adapter"


def test_runs_without_a_choice(tmp_path: Path, monkeypatch, capsys) -> None:
    cases = [
        ([tmp_path / "nowhere"], "config.json is missing"),
        ([run_folder(tmp_path / "a", VALIDATIONS, [])], "none of the validated steps (0, 10, 20, 30) was kept"),
        ([run_folder(tmp_path / "b", [], [10])], "no validation in metrics.jsonl"),
        ([run_folder(tmp_path / "c", VALIDATIONS, [10]), "--max-tokens", 10], "the shortest critiques have 35.0"),
        ([run_folder(tmp_path / "d", VALIDATIONS, [10]), "--sets", "z"], "there are: a, b"),
        ([run_folder(tmp_path / "e", [(10, None, 20)], [10])], "name the sets that count by --sets"),
    ]
    for arguments, message in cases:
        assert fapo(monkeypatch, "select", *arguments) == 2
        assert message in " ".join(capsys.readouterr().err.split()), message
