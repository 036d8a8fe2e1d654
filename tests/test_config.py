from __future__ import annotations

import ast
import json
from dataclasses import replace
from pathlib import Path

import pytest

import fapo.config
from fapo.config import Config, from_dict, known_keys, load, to_dict
from fapo.errors import ConfigError

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.toml"))

BASE = """\
name = "small"
task = "policy"

[model]
path = "miniature:policy"

[data]
train = "miniature:train"
validation = { hard = "miniature:hard" }

[rollout]
max_tokens = 96

[reward]
kind = "fapo"

[judge]
kind = "oracle"

[optim]
steps = 20
learning_rate = 1e-4
betas = [0, 0.95]  # an integer will do for a float
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "small.toml"
    file.write_text(BASE, encoding="utf-8")
    return file


def test_defaults_and_values(path: Path) -> None:
    config = load(path)
    assert (config.name, config.task, config.seed, config.output) == ("small", "policy", 0, "runs")
    assert (config.rollout.num_prompts, config.rollout.group_size, config.rollout.max_tokens) == (48, 8, 96)
    assert (config.reward.penalty, config.reward.shift, config.reward.on_unscored) == (1.0, None, "mask")
    assert config.data.validation == {"hard": "miniature:hard"}
    assert config.optim.betas == (0.0, 0.95)
    assert isinstance(config.optim.betas[0], float)
    assert config.judge is not None
    assert config.judge.urls == ()


@pytest.mark.parametrize(
    "override, key, value",
    [
        ("seed=7", "seed", 7),
        ("name=lambda_0.5", "name", "lambda_0.5"),  # a bare word is a string
        ("optim.learning_rate = 3e-5", "optim.learning_rate", 3e-5),
        ("optim.learning_rate=1", "optim.learning_rate", 1.0),
        ("optim.betas=[0.8, 0.9]", "optim.betas", (0.8, 0.9)),
        ("data.limit=100", "data.limit", 100),
        ("data.validation.near=miniature:near", "data.validation.near", "miniature:near"),
        ("data.validation={}", "data.validation", {}),
        ("judge.all=true", "judge.all", True),
        ("judge.kind=local, judge.model=runs/a=b", "judge.model", "runs/a=b"),
        ("reward.kind=outcome, judge=", "judge", None),  # nothing removes the key
        ("trl.vllm_mode=server", "trl.vllm_mode", "server"),
        ("verl.trainer.nnodes=2", "verl.trainer.nnodes", 2),
        ("reward.shift=3", "reward.penalty", 0.5),  # 2 / (shift + 1)
        ("reward.shift=0", "reward.penalty", 2.0),
        ("reward.shift=3, reward.penalty=0.5", "reward.penalty", 0.5),
        ("reward.penalty=0", "reward.penalty", 0.0),
    ],
)
def test_overrides(path: Path, override: str, key: str, value: object) -> None:
    found: object = load(path, override.split(", ") if "[" not in override else [override])
    for part in key.split("."):
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "override, message",
    [
        # unknown keys
        ("reward.penalti=2", "reward.penalti: unknown key; did you mean reward.penalty?"),
        ("sed=2", "sed: unknown key; did you mean seed?"),
        ("penalty=2", "penalty: unknown key; did you mean reward.penalty?"),
        ("penalti=2", "penalti: unknown key; did you mean reward.penalty?"),
        ("rollout.timeout=2", "rollout.timeout: unknown key; did you mean judge.timeout?"),
        ("optim.lr=1", "optim.lr: unknown key; known here: steps, learning_rate, warmup_steps"),
        ("judg.votes=3", "judg: unknown key; did you mean judge?"),
        # missing keys
        ("optim.steps=", "optim.steps is missing; add `steps` to [optim]"),
        ("task=", "task is missing; add `task`"),
        ("model=", "model is missing; add `model`"),
        # wrong types
        ("seed=true", "seed: should be a valid integer, not True"),
        ("seed=1.0", "seed: should be a valid integer, not 1.0"),
        ('optim.steps="5"', "optim.steps: should be a valid integer, not '5'"),
        ("optim.learning_rate=true", "optim.learning_rate: should be a valid number, not True"),
        ("optim.learning_rate=nan", "optim.learning_rate: should be a finite number, not nan"),
        ("name=3", "name: should be a valid string, not 3"),
        ("judge.all=True", "judge.all: should be a valid boolean, not 'True'"),
        ("judge.all=1", "judge.all: should be a valid boolean, not 1"),
        ("task=polcy", "task: should be 'policy' or 'genrm', not 'polcy'"),
        ("reward.on_unscored=zero", "should be 'mask', 'correctness_only' or 'raise', not 'zero'"),
        ("optim.betas=0.9", "optim.betas: should be a valid array, not 0.9"),
        ("optim.betas=[0.9]", "optim.betas: has too few values; add one"),
        ("optim.betas=[0.9, 0.9, 0.9]", "optim.betas: has too many values; 2 are expected"),
        ("optim.betas=[0.9, true]", "optim.betas.1: should be a valid number, not True"),
        ("data.validation.hard=3", "data.validation.hard: should be a valid string, not 3"),
        ("data.validation=a", "data.validation: should be a table, not 'a'; write [data.validation]"),
        ("model=a", "model: should be a table, not 'a'; write [model]"),
        ("judge=[]", "judge: should be a table, not []; write [judge]"),
        # out of range
        ("seed=-1", "seed: should be greater than or equal to 0, not -1"),
        ("rollout.group_size=1", "rollout.group_size: should be greater than or equal to 2, not 1"),
        ("rollout.temperature=0", "rollout.temperature: should be greater than 0, not 0"),
        ("rollout.top_p=1.5", "rollout.top_p: should be less than or equal to 1, not 1.5"),
        ("reward.penalty=-1", "reward.penalty: should be greater than or equal to 0, not -1"),
        ("optim.betas=[0.9, 1]", "optim.betas.1: should be less than 1, not 1"),
        ("validation.every=0", "validation.every: should be greater than or equal to 1, not 0"),
        ("model.path=''", "model.path: should have at least 1 character, not ''"),
        ("name=a/b", "name: should be letters, digits and . _ - + = (it names a folder), not 'a/b'"),
        ('judge.urls=["localhost:8000"]', "judge.urls.0: should start with http:// or https://, not 'localhost:8000'"),
        # settings that do not go together
        ("task=genrm", 'reward.kind "fapo" does not go with task "genrm"; use genrm_step, genrm_outcome or genrm_sft'),
        ("reward.kind=genrm_step", 'reward.kind "genrm_step" does not go with task "policy"; use outcome, fapo'),
        ("judge=", 'reward.kind "fapo" needs a judge; add a [judge] table with `kind`'),
        ("judge.kind=local", 'judge: kind "local" needs `model`'),
        ("judge.kind=served", 'judge: kind "served" needs `urls` and `model`'),
        ("judge.votes=8", "judge: `votes` above 1 at `temperature` 0 are all the same; set temperature"),
        ("reward.overlong_buffer=97", "reward.overlong_buffer is longer than rollout.max_tokens; make it shorter"),
        ("optim.updates_per_batch=5", "optim.updates_per_batch does not divide the 384 rollouts of a batch"),
        ("optim.micro_batch_size=100", "optim.micro_batch_size does not divide the 384 rollouts of one update"),
        # missing files
        ("data.prompt=no/solve.txt", "data.prompt: no such file: no/solve.txt; give it relative to the working dir"),
        ("judge.template=own.txt", "judge.template: no such file: own.txt; give it relative to the working dir"),
        # overrides that are none
        ("seed", "not of the form table.key=value"),
        ("=3", "not of the form table.key=value"),
        ("reward..penalty=3", "not of the form table.key=value"),
        ("name.x=1", "name is a value, not a table"),
        ("optim.betas=[0.9", "not a TOML value: Unclosed array"),
    ],
)
def test_mistakes(path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(path, [override])
    assert message in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("first", [1.0, 0.3])
def test_shift_and_penalty_exclude_each_other(path: Path, first: float) -> None:
    with pytest.raises(ConfigError, match=r"reward\.shift and reward\.penalty exclude each other; remove one"):
        load(path, [f"reward.penalty={first}", "reward.shift=0.5"])


def test_messages_name_line_or_override(path: Path) -> None:
    path.write_text(BASE.replace("steps = 20", "steps = 0").replace("max_tokens", "max_token"), encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        load(path, ["seed=x"])
    assert str(error.value).splitlines() == [
        f"{path}:11: rollout.max_tokens is missing; add `max_tokens` to [rollout]",
        f"{path}:12: rollout.max_token: unknown key; did you mean rollout.max_tokens?",
        f"{path}:21: optim.steps: should be greater than or equal to 1, not 0",
        f"{path}, override \"seed=x\": seed: should be a valid integer, not 'x'",
    ]


def test_a_nested_key_is_found_where_its_table_stands(path: Path) -> None:
    path.write_text(BASE.replace('"miniature:hard"', "5"), encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"{path}:9: data\.validation\.hard: should be a valid string, not 5"):
        load(path)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"name = small", "not valid TOML"),
        (b"[model\npath = 1", "line 1"),
        (b"seed = 1\nseed = 2", "Cannot overwrite a value"),
        (b"name = '\xff'", "not UTF-8 text"),
    ],
)
def test_broken_files(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "broken.toml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        load(file)
    assert str(error.value).startswith(f"{file}: ")
    assert message in str(error.value)


def test_missing_files(path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"smal\.toml: no such file; did you mean {path}\?"):
        load(path.with_name("smal.toml"))
    with pytest.raises(ConfigError, match="no such file; give the path of a TOML file"):
        load(path.parent / "nowhere" / "x.toml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(path.parent)


@pytest.mark.parametrize(
    "overrides", [[], ["reward.shift=3"], ["reward.kind=outcome", "judge="], ["trl.bf16=true", "data.limit=3"]]
)
def test_round_trip_through_json(path: Path, overrides: list[str]) -> None:
    config = load(path, overrides)
    table = json.loads(json.dumps(to_dict(config)))
    assert from_dict(table) == config
    assert table["optim"]["betas"] == [0.0, 0.95]


def test_frozen(path: Path) -> None:
    config = load(path)
    with pytest.raises(AttributeError):
        config.seed = 1  # type: ignore[misc]
    assert replace(config, seed=1).seed == 1


def test_every_field_is_documented() -> None:
    tree = ast.parse(Path(fapo.config.__file__).read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.decorator_list]
    assert len(classes) == 8
    for node in classes:
        for field, after in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign):
                assert isinstance(after, ast.Expr), f"{node.name}.{ast.unparse(field.target)} has no docstring"


def test_known_keys() -> None:
    keys = list(known_keys(Config))
    assert {"name", "reward", "reward.penalty", "judge.urls", "trl"} <= set(keys)
    assert len(keys) == len(set(keys))


def test_there_are_configs() -> None:
    assert {"genrm_4b", "fapo_7b", "baseline_7b", "fapo_32b"} <= {file.stem for file in CONFIGS}


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_checked_in_configs(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = load(file)
    assert config.name == file.stem
    assert from_dict(to_dict(config)) == config


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_trl_tables_hold_only_what_trl_knows(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = pytest.importorskip("trl").GRPOConfig.__dataclass_fields__
    monkeypatch.chdir(ROOT)
    assert set(load(file).trl) <= set(known)
