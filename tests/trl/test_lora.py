"""Low-rank adapters: what is trained and saved, interruptions, and adapters where a model is asked for."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from fapo.config.reader import from_dict
from fapo.config.sampling import Sampling
from fapo.config.schema import Config
from fapo.data.jsonl import read_jsonl, write_jsonl
from fapo.data.miniature.sets import BASE_FOLDER
from fapo.errors import ConfigError, install
from fapo.inference.models import ModelSpec
from fapo.inference.transformers_model import LocalModel
from fapo.training.planner.shapes import find_shape
from fapo.training.select_checkpoint import candidates, choose
from fapo.trl import lora
from fapo.trl.checkpoints import load_model
from fapo.trl.sft import train as train_sft
from fapo.trl.train import train
from tests.support import trl_runs
from tests.support.command_line import fapo
from tests.support.interrupted_run import interrupted
from tests.support.trl_runs import Row, assert_same_weights

pytestmark = pytest.mark.slow
STEPS = 4
SHORT_AND_FAST = {"data.limit": 64, "optim.steps": STEPS, "optim.learning_rate": 2e-2, "validation.limit": 8}
LORA = {"rank": 4, "alpha": 8, "dropout": 0.1, "save": "adapter"}
CHATS = [[{"role": "user", "content": f"start {n}, add {n + 3}; mod 10"}] for n in range(8)]


def settings(output: Path, base: Path, **tables: Any) -> Config:
    """Return a config of a run of a few seconds; tables replace or extend its tables."""
    table = trl_runs.settings(output, base, **{"model.lora": LORA, "rollout.num_prompts": 4}, **SHORT_AND_FAST)
    for key, value in tables.items():
        table[key] = {**table.get(key, {}), **value} if isinstance(value, dict) else value
    return from_dict({key: value for key, value in table.items() if value is not None})


def genrm_settings(output: Path, base: Path, data: Path, method: str, **tables: Any) -> Config:
    changed: Row = {
        "task": "genrm",
        "method": method,
        "data": {"train": str(data), "validation": {"test": str(data)}},
        "rollout": {"max_tokens": 16},
        "genrm": {"template": "compact"},
        "judge": None,
        "reward": {"kind": "genrm_step"} if method == "rl" else None,
    }
    return settings(output, base, **changed, **tables)


def adapter_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def logits(path: Path) -> torch.Tensor:
    """Return the logits of a model after a few questions, as a model in this process computes them."""
    found = LocalModel.load(str(path), Sampling(max_tokens=12))
    inputs = found.tokenizer.apply_chat_template(CHATS, return_tensors="pt", return_dict=True, padding=True)
    with torch.no_grad():
        return found.model(**inputs).logits


def recorded(folder: Path) -> list[tuple[Any, ...]]:
    """Return what a run has recorded of its rollouts, and its losses and validations."""
    rows = [
        (row["step"], row["split"], row["response"], row["reward"]) for row in read_jsonl(folder / "rollouts.jsonl")
    ]
    metrics = read_jsonl(folder / "metrics.jsonl")
    return rows + [
        (row["step"], row["kind"], row.get("loss"), row.get("grad_norm"), row.get("easy/accuracy")) for row in metrics
    ]


@pytest.fixture(scope="module")
def lora_run(tiny_policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(settings(tmp_path_factory.mktemp("lora"), tiny_policy))


@pytest.fixture(scope="module")
def critiques(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write labelled solutions with critiques."""
    file = tmp_path_factory.mktemp("data") / "critiques.jsonl"
    rows = list(read_jsonl(BASE_FOLDER / "critic-train.jsonl"))[:16]
    write_jsonl(file, [row | {"critique": f"answer \\boxed{{{row['label']}}}"} for row in rows])
    return file


def test_checkpoints_hold_the_adapter_alone(lora_run: Path, tiny_policy: Path) -> None:
    for folder in (*(lora_run / "checkpoints").glob("checkpoint-*"), lora_run / "model"):
        assert (folder / "adapter_model.safetensors").is_file()
        assert not (folder / "model.safetensors").exists()
        named = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        assert (named["r"], named["lora_alpha"], named["lora_dropout"]) == (4, 8, 0.1)
        assert named["base_model_name_or_path"] == str(tiny_policy)
        adapted = {name.rpartition(".")[2] for name in named["target_modules"]}
        assert adapted == {f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")}
    trained = adapter_of(lora_run / "model")
    assert all(weights.abs().max() > 0 for name, weights in trained.items() if "lora_B" in name)


def test_an_interrupted_run_has_the_result_of_an_uninterrupted_one(
    lora_run: Path, tiny_policy: Path, tmp_path: Path
) -> None:
    interrupted(train, settings(tmp_path, tiny_policy), STEPS - 1)
    assert {path.name for path in (tmp_path / "run/checkpoints").glob("checkpoint-*")} == {"checkpoint-2"}
    folder = train(settings(tmp_path, tiny_policy), resume=True)
    assert recorded(folder) == recorded(lora_run)
    assert_same_weights(folder, lora_run)


@pytest.mark.parametrize("save", ["adapter", "merged"])
def test_the_model_of_a_finished_run_can_be_saved_again(
    save: str, lora_run: Path, tiny_policy: Path, tmp_path: Path
) -> None:
    """As after a kill between the last checkpoint and the end; with "merged" the weights hold the adapter."""
    shutil.copytree(lora_run, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/model")
    changed = {"lora": {**LORA, "save": save}}
    if save == "merged":  # the setting belongs to the model, which must not change when a run is resumed
        stored = json.loads((tmp_path / "run/config.json").read_text(encoding="utf-8"))
        stored["model"]["lora"]["save"] = save
        (tmp_path / "run/config.json").write_text(json.dumps(stored), encoding="utf-8")
    folder = train(settings(tmp_path, tiny_policy, model=changed), resume=True)
    assert recorded(folder) == recorded(lora_run)
    if save == "adapter":
        assert_same_weights(folder, lora_run)
        return
    merged = load_file(folder / "model/model.safetensors")
    base, adapter = load_file(tiny_policy / "model.safetensors"), adapter_of(lora_run / "model")
    assert merged.keys() == base.keys()
    name = "model.layers.0.mlp.down_proj"
    a, b = (adapter[f"base_model.model.{name}.lora_{letter}.weight"] for letter in "AB")
    assert torch.allclose(merged[f"{name}.weight"], base[f"{name}.weight"] + 8 / 4 * b @ a, atol=1e-6)
    assert torch.equal(merged["model.embed_tokens.weight"], base["model.embed_tokens.weight"])
    plain = AutoModelForCausalLM.from_pretrained(folder / "model")
    assert "Peft" not in type(plain).__name__
    expected = logits(lora_run / "model")
    assert torch.allclose(logits(folder / "model"), expected, atol=1e-4)
    assert not torch.allclose(logits(tiny_policy), expected, atol=1e-2)


@pytest.mark.parametrize("method", ["rl", "sft"])
def test_a_genrm(method: str, tiny_genrm: Path, critiques: Path, tmp_path: Path) -> None:
    run = train_sft if method == "sft" else train
    whole = run(genrm_settings(tmp_path / "whole", tiny_genrm, critiques, method))
    parts = genrm_settings(tmp_path / "parts", tiny_genrm, critiques, method)
    interrupted(run, parts, STEPS - 1)
    resumed = run(parts, resume=True)
    assert recorded(resumed) == recorded(whole)
    assert_same_weights(resumed, whole)
    assert choose(candidates(whole)).folder in {whole / f"checkpoints/checkpoint-{step}" for step in (2, 4)}


def test_an_adapter_is_merged_where_all_weights_are_trained(lora_run: Path, tmp_path: Path) -> None:
    """And a second adapter is not put on it."""
    changed = {"model": {"lora": None}, "optim": {"steps": 1, "learning_rate": 1e-9}}
    folder = train(settings(tmp_path, lora_run / "model", **changed))
    assert torch.allclose(logits(folder / "model"), logits(lora_run / "model"), atol=1e-4)
    with pytest.raises(ConfigError, match=r'model.path: .* is an adapter, .*model.lora.save = "merged"'):
        train(settings(tmp_path / "second", lora_run / "model"))


def test_commands_take_an_adapter(
    lora_run: Path, tiny_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter, results = f"local:{lora_run / 'model'}", tmp_path / "results.jsonl"
    limits = ("--limit", 4, "--max-tokens", 24, "--out", results)
    assert fapo(monkeypatch, "eval", "miniature:validation", "--policy", adapter, *limits) == 0
    assert len(list(read_jsonl(results))) == 4
    judged = tmp_path / "verdicts.jsonl"
    options = ("--judge", adapter, "--template", "compact", "--max-tokens", 8, "--out", judged)
    assert fapo(monkeypatch, "judge", lora_run / "rollouts.jsonl", *options) in (0, 3)  # 3: it does not write verdicts
    assert judged.is_file()
    assert fapo(monkeypatch, "report", lora_run, "--output", tmp_path / "page.html") == 0
    assert find_shape(str(lora_run / "model"), "model.path") == find_shape(str(tiny_policy), "model.path")


def test_the_cache_knows_adapter_and_base_model(lora_run: Path, tiny_policy: Path) -> None:
    adapter, base = (ModelSpec(str(path)).record_name for path in (lora_run / "model", tiny_policy))
    assert adapter.endswith(f" on {base}")
    assert adapter != ModelSpec(str(lora_run / "checkpoints/checkpoint-2")).record_name


def load(folder: Path) -> Any:
    return ModelSpec(str(folder)).open("--judge", Sampling(max_tokens=4))


def test_an_adapter_without_its_base_model(lora_run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(lora_run / "model", tmp_path / "adapter")
    file = folder / "adapter_config.json"
    table = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(table | {"base_model_name_or_path": str(tmp_path / "gone")}), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"--judge: cannot load .*adapter of '.*gone', which cannot be loaded"):
        load(folder)
    file.write_text(json.dumps(table | {"base_model_name_or_path": None}), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"--judge: .*adapter_config.json: names no base model; put its folder"):
        load(folder)


def test_an_adapter_of_another_model(lora_run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(lora_run / "model", tmp_path / "adapter")
    file = folder / "adapter_config.json"
    table = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(table | {"base_model_name_or_path": str(BASE_FOLDER / "policy")}), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"cannot load .*it is an adapter that does not fit '.*policy'"):
        load(folder)


def test_an_adapter_may_have_no_tokenizer_of_its_own(lora_run: Path, tmp_path: Path) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(lora_run / "model" / name, tmp_path / name)
    assert torch.equal(logits(tmp_path), logits(lora_run / "model"))


def test_without_peft(lora_run: Path, tiny_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match="^" + re.escape(f"model.lora needs peft: {install('train')}") + "$"):
        train(settings(tmp_path, tiny_policy))
    with pytest.raises(ConfigError, match=r"^--judge: .*model is an adapter, which needs peft: pip install"):
        load(lora_run / "model")


@pytest.mark.parametrize("target", ["query", "lm_head"])
def test_layers_that_cannot_be_adapted(target: str, tiny_policy: Path, tmp_path: Path) -> None:
    changed = {"lora": {"target_modules": ["q_proj", target]}}
    message = (
        rf"model.lora.target_modules: the model has no layer {target} that can be adapted; choose from down_proj, "
    )
    with pytest.raises(ConfigError, match=message):
        train(settings(tmp_path, tiny_policy, model=changed))


def test_chosen_layers_are_adapted(tiny_policy: Path, tmp_path: Path) -> None:
    changed = {"lora": {**LORA, "target_modules": ["q_proj", "v_proj"]}}
    folder = train(settings(tmp_path, tiny_policy, model=changed, optim={"steps": 1}))
    assert {name.split(".")[-3] for name in adapter_of(folder / "model")} == {"q_proj", "v_proj"}


FOUR_BITS = {**LORA, "quantization": "4bit"}


@pytest.mark.parametrize("task", ["policy", "rl", "sft"])
def test_weights_in_four_bits(task: str, critiques: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted run has the result of an uninterrupted one; the folder of the model holds the adapter alone."""
    modules = pytest.importorskip("bitsandbytes.nn.modules")
    monkeypatch.setattr(modules, "has_avx512bf16", lambda: False)  # there an evaluation rounds the scales once more
    policy, genrm = (BASE_FOLDER / name for name in ("policy", "genrm"))  # its blocks of 64 do not fit a tiny model

    def config(name: str) -> Config:
        if task == "policy":
            return settings(tmp_path / name, policy, model={"lora": FOUR_BITS})
        return genrm_settings(tmp_path / name, genrm, critiques, task, model={"lora": FOUR_BITS})

    run = train_sft if task == "sft" else train
    whole = run(config("whole"))
    interrupted(run, config("parts"), STEPS - 1)
    resumed = run(config("parts"), resume=True)
    assert recorded(resumed) == recorded(whole)
    assert_same_weights(resumed, whole)
    assert all(weights.abs().max() > 0 for name, weights in adapter_of(whole / "model").items() if "lora_B" in name)
    assert not (whole / "model/model.safetensors").exists()
    assert logits(whole / "model").isfinite().all()


def test_the_weights_are_in_four_bits(tmp_path: Path) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    model, _ = load_model(settings(tmp_path, BASE_FOLDER / "policy", model={"lora": FOUR_BITS}))
    layers = {name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, bitsandbytes.nn.Linear4bit)}
    assert layers == {f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")}
    weights = model.model.layers[0].mlp.down_proj.weight
    real = load_file(BASE_FOLDER / "policy/model.safetensors")["model.layers.0.mlp.down_proj.weight"].float()
    error = bitsandbytes.functional.dequantize_4bit(weights.data, weights.quant_state).float() - real
    assert 0 < error.norm() / real.norm() < 0.12, "the rounding of NF4"
    assert model.model.embed_tokens.weight.dtype == torch.float32


def test_a_judge_on_weights_in_four_bits(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    judge = {"kind": "adapter", "model": "base", "template": "compact", "max_tokens": 8, "all": True}
    judge["max_failure_rate"] = 1.0
    folder = train(
        settings(tmp_path, BASE_FOLDER / "policy", model={"lora": FOUR_BITS}, judge=judge, optim={"steps": 1})
    )
    with sqlite3.connect(folder / "cache.sqlite") as cache:
        asked = {json.loads(row)["quantization"] for (row,) in cache.execute("SELECT settings FROM answers")}
    assert asked == {"4bit"}, "verdicts of rounded and of whole weights are kept apart"


def test_mistakes_with_four_bits(tiny_policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r'model.lora: .save. "merged" would add .* set save = "adapter"'):
        settings(tmp_path, tiny_policy, model={"lora": {"quantization": "4bit"}})
    with pytest.raises(ConfigError, match=r"model.lora.quantization: should be '4bit', not '8bit'"):
        settings(tmp_path, tiny_policy, model={"lora": {"quantization": "8bit"}})
    monkeypatch.setattr(lora, "is_bitsandbytes_available", lambda: False)
    with pytest.raises(ConfigError, match=r"^model.lora.quantization needs bitsandbytes: pip install 'bitsandbytes>="):
        train(settings(tmp_path, tiny_policy, model={"lora": FOUR_BITS}))
