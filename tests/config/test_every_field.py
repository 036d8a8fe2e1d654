"""Each setting of the config under each engine: it changes what the engine gets, or it is refused by name.

A new field without an entry in `FIELDS` fails here. To see what an engine gets, its trainer is replaced by a record of
its arguments. The verl engine is seen from outside of verl: its overrides, its data files and its reward workers.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet
import pytest
import torch
from datasets import Dataset

from fapo.config.reader import from_dict
from fapo.config.sampling import Sampling, settings_of
from fapo.config.schema import Config, known_keys
from fapo.data.jsonl import read_jsonl, write_jsonl
from fapo.data.miniature.sets import BASE_FOLDER
from fapo.errors import ConfigError
from fapo.training.run_folder import RunFolder
from fapo.trl import checkpoints, lora, sft, train
from fapo.trl.run import Run
from fapo.types import Completion
from fapo.verl import reward as verl_reward
from fapo.verl.datasets import parquet_files
from fapo.verl.overrides import overrides
from fapo.verl.train import prepare, with_absolute_paths
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow

Table = dict[str, Any]

COMMON: Table = {
    "name": "run",
    "optim": {"steps": 4, "learning_rate": 1e-3},
    "validation": {"limit": 4},
}
SERVED: Table = {
    "kind": "served",
    "urls": ["http://127.0.0.1:9/v1"],
    "model": "m",
    "template": "compact",
    "temperature": 0.6,
    "canaries": "miniature:critic-test",
}
POLICY: Table = COMMON | {
    "task": "policy",
    "model": {"path": "miniature:policy"},
    "data": {"train": "miniature:train", "limit": 4, "validation": {"easy": "miniature:validation"}},
    "rollout": {"max_tokens": 16, "num_prompts": 4, "group_size": 4},
    "reward": {"kind": "fapo"},
    "judge": SERVED,
}
GENRM: Table = COMMON | {
    "task": "genrm",
    "model": {"path": "miniature:genrm"},
    "data": {"train": "miniature:critic-train", "limit": 4, "validation": {"easy": "miniature:critic-test"}},
    "rollout": {"max_tokens": 16, "num_prompts": 4, "group_size": 4},
    "reward": {"kind": "genrm_step"},
    "genrm": {"template": "compact"},
}
SFT: Table = {key: value for key, value in GENRM.items() if key != "reward"} | {"method": "sft"}
ENGINES = {
    "trl policy": POLICY,
    "trl genrm": GENRM,
    "sft": SFT,
    "verl policy": POLICY,
    "verl genrm": GENRM,
}
"""Engine and task -> the config that is changed."""

RL, POLICIES = ("trl policy", "trl genrm", "verl policy", "verl genrm"), ("trl policy", "verl policy")


@dataclass(frozen=True)
class Field:
    """How one setting is changed, and what each engine does with it."""

    value: Any
    """Another value; {} of a table removes it."""
    honoured: Sequence[str] = tuple(ENGINES)
    """Engines that get something else; the others refuse the setting."""
    given: Table | None = None
    """Settings in which it means something, beside those of the engine's config."""
    tested: Mapping[str, str] | None = None
    """Engine -> test that holds its meaning, where it acts after the engine was started."""


TRL_AND_SFT = ("trl policy", "trl genrm", "sft")
JUDGE_OFF = {"verl policy": "tests/verl/test_recorder.py::test_a_judge_that_is_down_stops_the_run_in_small_batches_too"}
CANARIES_OFF = {"verl policy": "tests/verl/test_recorder.py::test_canaries_are_measured_and_can_stop_the_run"}
COST = {"verl policy": "tests/verl/test_recorder.py::test_tokens_and_cost_of_the_judge_are_metrics"}
LONG = dict.fromkeys(
    TRL_AND_SFT, "tests/training/test_datasets.py::test_training_rows_with_long_prompts_are_left_out_and_counted"
)
MERGED = dict.fromkeys(TRL_AND_SFT, "tests/trl/test_lora.py::test_the_model_of_a_finished_run_can_be_saved_again")
ADAPTER = {"model": {"lora": {}}}
ORACLE = {"judge": {"kind": "oracle"}}
AUDITED = {"judge": {"audit": {"judge": {"kind": "oracle"}}}}
AUDIT = {"verl policy": "tests/verl/test_recorder.py::test_audits_are_measured_and_can_stop_the_run"}
LIMITED = {"judge": {"audit": {"judge": {"kind": "oracle"}, "min_j": 0.5}}}
CORRECTED = {
    "verl policy": "tests/verl/test_recorder.py::test_rewards_are_corrected_for_the_rates_of_the_audits_before"
}
PRM = {
    "judge": {
        "kind": "prm",
        "urls": ["http://127.0.0.1:9"],
        "model": "m",
        "tokenizer": "miniature:genrm",
        "separator": "\n",
    }
}
CASCADE = {
    "judge": {
        "kind": "cascade",
        "thresholds": [0.3, 0.7],
        "cheap": {"kind": "served", "urls": ["http://127.0.0.1:9/v1"], "model": "m", "template": "compact"},
        "strong": {"kind": "oracle"},
    }
}
FIELDS = {
    "name": Field("other"),
    "output": Field("elsewhere"),
    "seed": Field(7),
    "model.path": Field("model"),
    "model.dtype": Field("bfloat16"),
    "model.lora.rank": Field(8, given=ADAPTER),
    "model.lora.alpha": Field(64, given=ADAPTER),
    "model.lora.dropout": Field(0.1, TRL_AND_SFT, ADAPTER),
    "model.lora.target_modules": Field(["q_proj"], given=ADAPTER),
    "model.lora.save": Field("adapter", TRL_AND_SFT, ADAPTER, MERGED),
    "model.lora.quantization": Field("4bit", TRL_AND_SFT, {"model": {"lora": {"save": "adapter"}}}),
    "data.train": Field("other.jsonl"),
    "data.validation": Field({"another": "other.jsonl"}),
    "data.limit": Field(5),
    "data.max_prompt_tokens": Field(4096, tested=LONG),
    "data.prompt": Field("boxed", POLICIES),
    "data.label_noise": Field(1.0, ("trl genrm", "verl genrm")),
    "rollout.max_tokens": Field(17),
    "rollout.num_prompts": Field(2),
    "rollout.group_size": Field(2),
    "rollout.temperature": Field(0.5, RL),
    "rollout.top_p": Field(0.5, RL),
    "optim.steps": Field(5),
    "optim.learning_rate": Field(1e-4),
    "optim.warmup_steps": Field(3),
    "optim.weight_decay": Field(0.1),
    "optim.betas": Field([0.8, 0.9]),
    "optim.clip_low": Field(0.1, RL),
    "optim.clip_high": Field(0.4, RL),
    "optim.clip_dual": Field(10.0, RL),
    "optim.max_grad_norm": Field(0.5),
    "optim.updates_per_batch": Field(2),
    "optim.micro_batch_size": Field(4),
    "validation.every": Field(3),
    "validation.num_samples": Field(2),
    "validation.temperature": Field(0.5),
    "validation.top_p": Field(0.5),
    "validation.limit": Field(2),
    "validation.save_every": Field(3),
    "genrm.template": Field("locate", ("trl genrm", "sft", "verl genrm"), {"data": {"max_prompt_tokens": 8192}}),
    "reward.kind": Field("outcome", POLICIES),
    "reward.overlong_buffer": Field(8, RL),
    "reward.checker": Field("exact", POLICIES),
    "reward.on_unscored": Field("correctness_only", POLICIES),
    "reward.penalty": Field(2.0, POLICIES),
    "reward.shift": Field(3.0, POLICIES),
    "reward.weight": Field(2.0, POLICIES, {"reward": {"kind": "decoupled"}}),
    "reward.share_credit": Field(False, POLICIES, {"reward": {"kind": "first_error"}}),
    "reward.keep": Field(3, POLICIES, {"reward": {"kind": "filter", "keep": 2}}),
    "reward.judge_recall": Field(0.9, POLICIES),
    "reward.judge_false_positive_rate": Field(0.1, POLICIES),
    "judge.kind": Field("oracle", POLICIES, {"judge": {"kind": "local", "model": "miniature:genrm"}}),
    "judge.all": Field(True, POLICIES),
    "judge.canaries": Field("miniature:critic-train", POLICIES),
    "judge.canary_rate": Field(0.5, POLICIES),
    "judge.canary_min_f1": Field(0.5, POLICIES, tested=CANARIES_OFF),
    "judge.model": Field("other", POLICIES),
    "judge.template": Field("locate", POLICIES),
    "judge.steps": Field("paragraphs", POLICIES),
    "judge.format": Field("json", POLICIES),
    "judge.extra_body": Field({"reasoning_effort": "low"}, POLICIES),
    "judge.prices": Field([2.0, 1.0, 8.0], POLICIES, tested=COST),
    "judge.temperature": Field(0.5, POLICIES),
    "judge.top_p": Field(0.5, POLICIES),
    "judge.max_tokens": Field(77, POLICIES),
    "judge.votes": Field(3, POLICIES),
    "judge.logprobs": Field(True, POLICIES),
    "judge.min_words": Field(5, POLICIES),
    "judge.cache": Field("critiques.sqlite", POLICIES),
    "judge.max_failure_rate": Field(0.25, POLICIES, tested=JUDGE_OFF),
    "judge.revision": Field("b2", POLICIES),
    "judge.urls": Field(["http://127.0.0.1:10/v1"], POLICIES),
    "judge.concurrency": Field(16, POLICIES),
    "judge.timeout": Field(7.0, POLICIES),
    "judge.deadline": Field(70.0, POLICIES),
    "judge.overlap": Field(False, ("trl policy",)),
    "judge.threshold": Field(0.3, POLICIES, PRM),
    "judge.separator": Field("<|end|>", POLICIES, PRM),
    "judge.prompt": Field("plain", POLICIES, PRM),
    "judge.tokenizer": Field("miniature:policy", POLICIES, PRM),
    "judge.cheap": Field({"kind": "oracle", "false_positive_rate": 0.5}, POLICIES, CASCADE),
    "judge.strong": Field({"kind": "oracle", "false_positive_rate": 0.5}, POLICIES, CASCADE),
    "judge.thresholds": Field([0.2, 0.7], POLICIES, CASCADE),
    "judge.false_negative_rate": Field(0.5, POLICIES, ORACLE),
    "judge.false_positive_rate": Field(0.5, POLICIES, ORACLE),
    "judge.location_error_rate": Field(0.5, POLICIES, ORACLE),
    "judge.blind_to": Field(["slip"], POLICIES, ORACLE),
    "judge.audit.judge": Field({"kind": "oracle"}, POLICIES, tested=AUDIT),
    "judge.audit.rate": Field(0.5, POLICIES, AUDITED, tested=AUDIT),
    "judge.audit.min_j": Field(0.5, POLICIES, AUDITED, tested=AUDIT),
    "judge.audit.on_low_j": Field("switch", POLICIES, LIMITED),
    "judge.audit.correct": Field(True, POLICIES, AUDITED, tested=CORRECTED),
    "trl": Field({"gradient_checkpointing": True}, TRL_AND_SFT, tested={}),
    "verl": Field({"data.shuffle": False}, ("verl policy", "verl genrm"), tested={}),
}
COLUMNS = {"task", "method"}
"""Settings that choose the engine's column itself."""
BACKENDS = {"trl", "verl"}
"""Tables of one engine each, which a config for both engines has side by side: another engine does not read them."""


def test_every_field_of_the_config_is_in_the_table() -> None:
    keys = known_keys()
    leaves = {key for key in keys if not any(other.startswith(f"{key}.") for other in keys)}
    assert FIELDS.keys() | COLUMNS == leaves


def test_the_tests_that_the_table_names_exist() -> None:
    for name in {name for field in FIELDS.values() for name in (field.tested or {}).values()}:
        file, _, function = name.partition("::")
        assert f"def {function}(" in (ROOT / file).read_text(encoding="utf-8"), name


# --- what an engine gets -----------------------------------------------------------------------------------------


class SeenTrainer:
    """Takes the place of a trainer, and keeps what it is given."""

    def __init__(self, **given: Any) -> None:
        self.given = given

    def remove_callback(self, callback: Any) -> None:
        pass


class SeenModel:
    """Takes the place of a model that samples, and keeps what it is given."""

    def __init__(self, *given: Any, **settings: Any) -> None:
        used = [settings_of(Sampling, value) if isinstance(value, Sampling) else value for value in given]
        self.given, self.asked = (used, settings), 0

    @classmethod
    def load(cls, *given: Any, **settings: Any) -> SeenModel:
        return cls(*given, **settings)

    def generate(self, conversations: Sequence[Any]) -> list[Any]:
        SEEN.append((self.given, len(conversations)))
        return [Completion() for _ in conversations]

    batch_size, concurrency, settings = 1, 1, SimpleNamespace()


SEEN: list[Any] = []
LAYERS = {"named_modules": lambda: [("q_proj", torch.nn.Linear(1, 1))], "get_output_embeddings": lambda: None}
"""Methods of a model with one layer."""


def plain(value: Any, above: tuple[int, ...] = ()) -> Any:
    """Return what is in a value, at any depth, as text; a whole config in it does not count."""
    if isinstance(value, Config) or id(value) in above:
        return None
    inner = (*above, id(value))
    if isinstance(value, str | int | float | bytes | Path | type(None) | type):
        return repr(value)
    if isinstance(value, RunFolder):
        return plain(value.path)
    if isinstance(value, Dataset):
        return plain(list(value), inner)
    if isinstance(value, Mapping):
        return {str(key): plain(item, inner) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item, inner) for item in value]
    if inspect.isfunction(value) or inspect.ismethod(value):
        cells = [cell.cell_contents for cell in (getattr(value, "__closure__", None) or ())]
        return [value.__qualname__, plain([cells, getattr(value, "__self__", None), vars(value)], inner)]
    if is_dataclass(value):
        return [type(value).__name__, {f.name: plain(getattr(value, f.name, None), inner) for f in fields(value)}]
    ours = type(value).__module__.partition(".")[0] in ("fapo", "tests", "types")
    return [type(value).__name__, plain(vars(value), inner) if ours and hasattr(value, "__dict__") else None]


def seen_by_trl(config: Config) -> Any:
    """Return what TRL's trainer gets."""
    trainers: list[SeenTrainer] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            checkpoints,
            "load_weights",
            lambda path, dtype, bits: SimpleNamespace(path=path, dtype=dtype, bits=str(bits), **LAYERS),
        )
        patch.setattr(lora, "is_bitsandbytes_available", lambda: True)
        patch.setattr(Run, "train", lambda self, trainer: trainers.append(trainer))
        patch.setattr("fapo.inference.transformers_model.LocalModel", SeenModel)
        patch.setattr(train, "Trainer", SeenTrainer)
        patch.setattr(train, "submit_rollouts", lambda trainer, reward, eager: setattr(trainer, "eager", eager))
        if config.method == "rl":
            train.train(config)
        else:
            real, seen = sft._Trainer, SeenTrainer
            patch.setattr(sft, "_Trainer", seen)
            patch.setattr(sft, "LocalModel", SeenModel)
            sft.train(config)
            (trainer,) = trainers
            trainer.model, trainer.processing_class = None, None
            trainer.state = SimpleNamespace(global_step=0)
            SEEN.clear()
            for examples in trainer.sets.values():
                real._sampled_critiques(trainer, config, examples)
            trainer.sampled = list(SEEN)
    (trainer,) = trainers
    return plain(vars(trainer))


def seen_by_verl(config: Config) -> Any:
    """Return what verl gets: overrides, data files, and the scorer of a reward worker."""
    config = with_absolute_paths(config)
    folder = prepare(config)
    sets = [pyarrow.parquet.read_table(path).to_pylist() for path in parquet_files(config, folder / "data")]
    key = str(folder / "config.json"), 2, ""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fapo.inference.transformers_model.LocalModel", SeenModel)
        if config.task == "policy":
            worker: Any = verl_reward._policy_scorer(*key)
        else:
            worker = [
                asyncio.run(
                    verl_reward._score(
                        "", text, row["reward_model"]["ground_truth"], row["extra_info"], key, recorded=True
                    )
                )
                for row in sets[0]
                for text in ("\\boxed{0}", "\\boxed{-1}")
            ]
    return plain([overrides(config), sets, worker])


def merged(table: Table, other: Mapping[str, Any]) -> Table:
    """Return a table with the settings of another one; a [judge] of another kind replaces the whole."""
    out = copy.deepcopy(table)
    for key, value in other.items():
        whole = not isinstance(value, Mapping) or key in BACKENDS or (key == "judge" and "kind" in value)
        out[key] = copy.deepcopy(value) if whole else {**out.get(key, {}), **value}
    return out


def with_value(table: Table, key: str, value: Any) -> Table:
    """Return a table with another value of one setting; a table that the engine's config lacks is that of a policy."""
    name, _, rest = key.partition(".")
    if not rest:
        return table | {name: value}
    whole = table.get(name) or copy.deepcopy({**GENRM, **POLICY}.get(name, {}))
    if key == "judge.kind":
        whole = {}
    return table | {name: with_value(whole, rest, value)}


@lru_cache(maxsize=32)
def seen(engine: str, text: str, folder: str) -> Any:
    """Return what an engine gets for a config, given as JSON."""
    config = from_dict(json.loads(text))
    found = (seen_by_verl if engine.startswith("verl") else seen_by_trl)(config)
    return json.dumps(found, sort_keys=True).replace(folder, "FOLDER")


@pytest.mark.parametrize("engine", ENGINES)
def test_equal_configs_look_equal(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each field would seem to be honoured."""
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path, genrm=engine not in POLICIES)
    data = {"data": {"train": "critiques.jsonl"}} if engine == "sft" else {}
    tables = [merged(ENGINES[engine], data) | {"output": str(tmp_path / name)} for name in ("first", "second")]
    first, second = (seen(engine, json.dumps(table), table["output"]) for table in tables)
    assert first == second
    assert len(first) > 1000


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("key", FIELDS)
def test_each_engine_honours_a_setting_or_refuses_it(
    key: str, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    field = FIELDS[key]
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path, genrm=engine not in POLICIES)
    base = ENGINES[engine]
    if field.given:
        base = merged(base, field.given)
    if engine == "sft":
        base = merged(base, {"data": {"train": "critiques.jsonl"}})
    if engine not in field.honoured:
        if key in BACKENDS:
            return
        config = with_value({**base, "output": str(tmp_path / "refused")}, key, field.value)
        with pytest.raises(ConfigError) as refusal:
            seen(engine, json.dumps(config), str(tmp_path / "refused"))
        table = key.partition(".")[0]
        names = key.rpartition(".")[2], f"[{table}]", f"{table}.kind"
        assert any(name in str(refusal.value) for name in names), refusal.value
        return
    found = []
    for name, table in (("before", base), ("after", with_value(base, key, field.value))):
        folder = tmp_path / name
        found.append(seen(engine, json.dumps({"output": str(folder), **table}), str(folder)))
    tested = (field.tested or {}).get(engine)
    assert (found[0] == found[1]) == bool(tested), tested or "nothing changes"


def write_data(folder: Path, *, genrm: bool) -> None:
    """Write a model and data other than those of the configs, and critiques to imitate."""
    shutil.copytree(BASE_FOLDER / ("genrm" if genrm else "policy"), folder / "model")
    rows: list[Table] = [{"id": f"other-{i}", "problem": f"{i} + 1 = ?", "answer": str(i + 1)} for i in range(6)]
    if genrm:
        known = [row for row, _ in zip(read_jsonl(BASE_FOLDER / "critic-test.jsonl"), range(6), strict=False)]
        rows = [row | {"critique": "answer \\boxed{-1}"} for row in known]
    write_jsonl(folder / "other.jsonl", rows)
    write_jsonl(folder / "critiques.jsonl", rows[::-1])
