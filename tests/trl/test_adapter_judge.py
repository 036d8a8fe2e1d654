"""The adapter judge: the verdicts of the adapter loaded alone, and a training that does not notice it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fapo.config.reader import from_dict
from fapo.config.schema import AdapterJudge, Config, LocalJudge
from fapo.data.jsonl import read_jsonl, write_jsonl
from fapo.data.miniature.sets import BASE_FOLDER
from fapo.errors import ConfigError
from fapo.inference.adapters import adapter_base
from fapo.judge.from_config import make_judge, open_judge
from fapo.trl.checkpoints import load_model
from fapo.trl.lora import AdapterModel, peft_config
from fapo.trl.sft import train as train_sft
from fapo.trl.train import train
from fapo.types import Problem, Rollout, Verdict
from fapo.verl.overrides import overrides
from tests.support import trl_runs
from tests.support.interrupted_run import interrupted
from tests.support.trl_runs import Row, assert_same_weights, rows

pytestmark = pytest.mark.slow
STEPS = 4
GENRM = BASE_FOLDER / "genrm"
"""Base model of policy and judge: a GenRM, so that verdicts differ."""
CANARIES = {"all": True, "canaries": "miniature:critic-test", "canary_rate": 0.5}
PROMPT = {"template": "compact", "max_tokens": 80}


def settings(output: Path, base: Path, judge: Row, **tables: Any) -> Config:
    """Return the config of a run that trains a LoRA adapter as the policy, with a judge."""
    changed = {"data.limit": 64, "optim.steps": STEPS, "optim.learning_rate": 2e-2, "validation.limit": 8}
    changed |= {"model.lora": {"rank": 4, "dropout": 0.1, "save": "adapter"}, "judge": PROMPT | CANARIES | judge}
    table = trl_runs.settings(output, base, **changed)
    for key, value in tables.items():
        table[key] = {**table[key], **value}
    return from_dict(table)


@pytest.fixture(scope="module")
def judge_adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an adapter on the weights of the policy, which can write verdicts; the adapter has learned other ones."""
    folder = tmp_path_factory.mktemp("judge")
    rows = list(read_jsonl(BASE_FOLDER / "critic-train.jsonl"))[:64]
    write_jsonl(folder / "data.jsonl", [row | {"critique": f"\\boxed{{{min(row['label'], 0)}}}"} for row in rows])
    table = {
        "name": "run",
        "task": "genrm",
        "method": "sft",
        "output": str(folder),
        "model": {"path": str(GENRM), "lora": {"rank": 8, "alpha": 8, "save": "adapter"}},
        "data": {"train": str(folder / "data.jsonl")},
        "rollout": {"max_tokens": 16, "num_prompts": 8, "group_size": 2},
        "genrm": {"template": "compact"},
        "optim": {"steps": 16, "learning_rate": 3e-3, "warmup_steps": 0},
    }
    return train_sft(from_dict(table)) / "model"


@pytest.fixture(scope="module")
def judged_run(judge_adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    judge = {"kind": "adapter", "model": str(judge_adapter)}
    return train(settings(tmp_path_factory.mktemp("run"), GENRM, judge))


def recorded(folder: Path) -> list[tuple[Any, ...]]:
    """Return what a run has recorded, but for times."""
    rollouts = [
        (row["step"], row["split"], row["response"], row["status"], row["critique"], row["reward"], row["advantage"])
        for row in read_jsonl(folder / "rollouts.jsonl")
    ]
    metrics = [
        {key: value for key, value in row.items() if key in ("loss", "grad_norm", "judge/f1", "easy/fp_ratio")}
        for row in read_jsonl(folder / "metrics.jsonl")
    ]
    return [*rollouts, *(tuple(sorted(row.items())) for row in metrics)]


def adapter_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model/adapter_model.safetensors")


async def verdicts_of(model: Path, rollouts: list[Rollout], **changed: Any) -> list[Verdict]:
    """Return the verdicts of a model that is loaded alone."""
    async with open_judge(LocalJudge(model=str(model), **PROMPT, **changed)) as judge:
        return await judge(rollouts)


def judged_rollouts(run: Path) -> tuple[list[Rollout], list[tuple[Any, ...]]]:
    """Return the rollouts of a run that were judged, and their verdicts."""
    rows = [row for row in read_jsonl(run / "rollouts.jsonl") if row["status"] != "skipped"]
    rollouts = [Rollout(Problem("", row["problem"], row["reference"]), row["response"]) for row in rows]
    return rollouts, [(row["status"], row["flawed"], row["error_step"], row["critique"]) for row in rows]


def test_verdicts_are_those_of_the_adapter_alone(judged_run: Path, judge_adapter: Path) -> None:
    """Also after the policy's own adapter was changed by training; the base model has others."""
    rollouts, found = judged_rollouts(judged_run)
    base = asyncio.run(verdicts_of(Path(adapter_base(str(judge_adapter)) or ""), rollouts))
    assert [v.critique for v in base] != [critique for *_, critique in found]
    alone = asyncio.run(verdicts_of(judge_adapter, rollouts))
    assert [(v.status, v.flawed, v.error_step, v.critique) for v in alone] == found
    assert len(found) > 20
    assert sum(status == "ok" for status, *_ in found) > len(found) / 2
    assert len(set(found)) > 1
    assert all(weights.abs().max() > 0 for name, weights in adapter_of(judged_run).items() if "lora_B" in name)


def test_the_bare_base_judges_too(tmp_path: Path) -> None:
    """Also with the probability of a flaw, which takes a forward pass more."""
    judge = {"kind": "adapter", "model": "base", "max_failure_rate": 1.0, "logprobs": True}
    run = train(settings(tmp_path, GENRM, judge))
    rollouts, found = judged_rollouts(run)
    alone = asyncio.run(verdicts_of(GENRM, rollouts, logprobs=True))
    probabilities = [row.get("flag_probability") for row in read_jsonl(run / "rollouts.jsonl") if row["critique"]]
    assert probabilities == [v.flag_probability and pytest.approx(v.flag_probability, rel=1e-3) for v in alone]
    assert any(probabilities)
    assert len(set(found)) > 1
    assert [(v.status, v.flawed, v.error_step, v.critique) for v in alone] == found


def test_the_policy_judges_itself_as_it_is_at_each_step(tmp_path: Path) -> None:
    """Its verdicts are those of its checkpoint of that step, loaded alone; they change with it."""
    tables = {"optim": {"steps": 2, "learning_rate": 5e-3, "warmup_steps": 0}, "validation": {"save_every": 1}}
    run = train(settings(tmp_path, GENRM, {"kind": "adapter", "model": "policy", "max_failure_rate": 1.0}, **tables))
    assert not (run / "cache.sqlite").exists(), "an answer of an earlier step is not that of the policy now"
    rows = [row for row in read_jsonl(run / "rollouts.jsonl") if row["status"] != "skipped"]
    states = [GENRM, *(run / f"checkpoints/checkpoint-{step}" for step in (1, 2))]
    base = []
    for num_updates, weights in enumerate(states):
        # rollouts of a training step are judged before its update, those of a validation after it
        judged = [row for row in rows if row["step"] - (row["split"] == "train") == num_updates]
        rollouts = [Rollout(Problem("", row["problem"], row["reference"]), row["response"]) for row in judged]
        found = [(row["status"], row["flawed"], row["error_step"], row["critique"]) for row in judged]
        alone = asyncio.run(verdicts_of(weights, rollouts))
        assert found
        assert [(v.status, v.flawed, v.error_step, v.critique) for v in alone] == found
        base.append([v.critique for v in asyncio.run(verdicts_of(GENRM, rollouts))] == [v.critique for v in alone])
    assert base == [True, False, False], "training has changed the judge"


def test_the_policy_as_its_own_judge_has_no_cache(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'judge.cache: the answers of judge.model "policy" change'):
        settings(tmp_path, GENRM, {"kind": "adapter", "model": "policy", "cache": "answers.sqlite"})


def test_training_is_that_beside_a_judge_of_its_own(judged_run: Path, judge_adapter: Path, tmp_path: Path) -> None:
    """The same rollouts, losses and weights, to the last bit: judging touches nothing that training depends on."""
    run = train(settings(tmp_path, GENRM, {"kind": "local", "model": str(judge_adapter)}))
    assert recorded(run) == recorded(judged_run)
    assert_same_weights(judged_run, run)


def test_checkpoints_hold_the_adapter_of_the_policy_alone(judged_run: Path, judge_adapter: Path) -> None:
    folders = [*(judged_run / "checkpoints").glob("checkpoint-*"), judged_run / "model"]
    assert len(folders) == 3
    assert [path for folder in folders for path in folder.iterdir() if path.is_dir()] == []
    judge = load_file(judge_adapter / "adapter_model.safetensors")
    ours = adapter_of(judged_run)
    assert not any(weights.shape == judge[name].shape for name, weights in ours.items()), "rank 4 and rank 8"


def test_an_interrupted_run_has_the_result_of_an_uninterrupted_one(
    judged_run: Path, judge_adapter: Path, tmp_path: Path
) -> None:
    config = settings(tmp_path, GENRM, {"kind": "adapter", "model": str(judge_adapter)})
    interrupted(train, config, STEPS - 1)
    run = train(config, resume=True)
    assert_same_weights(run, judged_run)
    ours, theirs = (rows(folder, "rollouts") for folder in (run, judged_run))
    assert [row["response"] for row in ours] == [row["response"] for row in theirs]


def test_the_judge_is_not_in_merged_weights(judge_adapter: Path, tmp_path: Path) -> None:
    judge = {"kind": "adapter", "model": str(judge_adapter)}
    model = {"lora": {"rank": 4, "save": "merged"}}
    run = train(settings(tmp_path, GENRM, judge, model=model, optim={"steps": 1, "learning_rate": 1e-12}))
    merged, base = (load_file(folder / "model.safetensors") for folder in (run / "model", GENRM))
    assert merged.keys() == base.keys()
    assert all(torch.allclose(merged[name], base[name], atol=1e-6) for name in base)


@pytest.mark.parametrize("name", ["adapter", "base", "policy"])
def test_judging_leaves_the_model_as_it_is(name: str, judge_adapter: Path, tmp_path: Path) -> None:
    import peft

    config = settings(tmp_path, GENRM, {"kind": "adapter", "model": str(judge_adapter)})
    model, _ = load_model(config)
    model = peft.get_peft_model(model, peft_config(config, model))
    model.train()
    model.base_model.model.model.layers[0].mlp.eval()  # one part in the other mode
    judge = AdapterModel(AdapterJudge(model=str(judge_adapter) if name == "adapter" else name), config.model)
    plain = SimpleNamespace(unwrap_model=lambda model: model)
    before = {key: weights.requires_grad for key, weights in model.named_parameters()}
    judge.attach(SimpleNamespace(model=model, accelerator=plain, is_fsdp_enabled=False, is_deepspeed_enabled=False))
    assert {key: before.get(key, False) for key, _ in model.named_parameters()} == {
        key: weights.requires_grad for key, weights in model.named_parameters()
    }, "the judge's adapter is not trained"

    tokens = torch.randint(5, 40, (2, 8))
    model(tokens, labels=tokens).loss.backward()

    def state() -> list[Any]:
        weights = [(key, w.requires_grad, w.data.clone(), w.grad) for key, w in model.named_parameters()]
        modes = [(key, module.training) for key, module in model.named_modules()]
        return [weights, modes, model.active_adapter, torch.get_rng_state()]

    (weights, modes, active, random), chats = state(), [[{"role": "user", "content": f"start {n}"}] for n in range(3)]
    grads = [None if grad is None else grad.clone() for *_, grad in weights]
    assert any(grad is not None for grad in grads)

    async def twice() -> None:
        await asyncio.gather(judge(chats), judge(chats[:1]))  # rollouts and canaries

    asyncio.run(twice())
    after, modes_after, active_after, random_after = state()
    assert (modes_after, active_after) == (modes, active) == (modes, "default")
    assert torch.equal(random_after, random)
    for old, new, grad in zip(weights, after, grads, strict=True):
        assert old[:2] == new[:2]
        assert torch.equal(old[2], new[2])
        assert old[3] is new[3] and (grad is None or torch.equal(grad, new[3]))


def test_an_adapter_judge_needs_a_trained_adapter(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'judge.kind "adapter" needs \[model.lora\]'):
        settings(tmp_path, GENRM, {"kind": "adapter", "model": "base"}, model={"lora": None})


@pytest.mark.parametrize(
    ("judge", "base", "message"),
    [
        ("genrm", "genrm", r'judge.model: .*genrm.* is no adapter; give an adapter of model.path, "base" or "policy"$'),
        ("adapter", "policy", r"judge.model: .*model is an adapter of .*genrm.*, but model.path is .*policy"),
        ("nowhere", "genrm", r"judge.model: .*nowhere"),
    ],
)
def test_adapters_that_cannot_judge(
    judge: str, base: str, message: str, tiny_policy: Path, judge_adapter: Path, tmp_path: Path
) -> None:
    paths = {"policy": tiny_policy, "genrm": GENRM, "adapter": judge_adapter, "nowhere": tmp_path / "nowhere"}
    with pytest.raises(ConfigError, match=message):
        train(settings(tmp_path, paths[base], {"kind": "adapter", "model": str(paths[judge])}))


def test_an_audit_has_weights_of_its_own(tmp_path: Path) -> None:
    audit = {"audit": {"judge": {"kind": "adapter", "model": "base"}}}
    with pytest.raises(ConfigError, match="`judge` of an audit has weights of its own"):
        settings(tmp_path, GENRM, {"kind": "adapter", "model": "base", **audit})


@pytest.mark.parametrize("name", ["base", "policy"])
def test_only_the_trainer_of_trl_has_the_weights(name: str, tmp_path: Path) -> None:
    config = settings(tmp_path, GENRM, {"kind": "adapter", "model": name})
    with pytest.raises(ConfigError, match=r'judge.kind "adapter" is for --engine trl'):
        overrides(config)
    assert config.judge
    with pytest.raises(ConfigError, match=r'judge.kind "adapter" is for fapo train with --engine trl'):
        make_judge(config.judge)
