"""The config: defaults, overrides, and a message for every mistake."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import fapo.config.schema
from fapo.config.paths import shipped_configs
from fapo.config.ranges import Count, Rate, check_ranges
from fapo.config.reader import from_dict, load, load_with_places, to_dict
from fapo.config.schema import (
    Config,
    FapoReward,
    FilterReward,
    GenRMConfig,
    OracleJudge,
    OutcomeReward,
    ServedJudge,
    StepRatioReward,
    known_keys,
)
from fapo.errors import ConfigError
from tests.support.paths import ROOT

CONFIGS = shipped_configs()

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
    assert config.judge == OracleJudge()
    assert (config.method, config.genrm) == ("rl", None)


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
        ("judge.model=runs/a, judge.kind=local", "judge.model", "runs/a"),  # in any order
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
        ("seed=2147483648", "seed: should be less than 2147483648, not 2147483648"),
        ("rollout.group_size=1", "rollout.group_size: should be greater than or equal to 2, not 1"),
        ("rollout.temperature=0", "rollout.temperature: should be greater than 0, not 0"),
        ("rollout.top_p=1.5", "rollout.top_p: should be less than or equal to 1, not 1.5"),
        ("reward.penalty=-1", "reward.penalty: should be greater than or equal to 0, not -1"),
        ("optim.betas=[0.9, 1]", "optim.betas.1: should be less than 1, not 1"),
        ("validation.every=0", "validation.every: should be greater than or equal to 1, not 0"),
        ("model.path=''", "model.path: should have at least 1 character, not ''"),
        ("name=a/b", "name: should be letters, digits and . _ - + = (it names a folder), not 'a/b'"),
        (
            'judge={kind="served",urls=["localhost:8000"],model="m"}',
            "judge.urls.0: should start with http:// or https://, not 'localhost:8000'",
        ),
        # settings that do not go together
        ("task=genrm", 'reward.kind "fapo" does not go with task "genrm"; use one of genrm_step, genrm_outcome'),
        ("reward.kind=genrm_step", 'reward.kind "genrm_step" does not go with task "policy"; use one of outcome, fapo'),
        ("judge=", 'reward.kind "fapo" needs a judge; add a [judge] table with `kind`'),
        ("judge.kind=local", "judge.model is missing; add `model` to [judge]"),
        ('judge={kind="served",model="m"}', "judge.urls is missing; add `urls` to [judge]"),
        ('judge={kind="served",model="m",urls=[]}', "judge.urls: should have at least 1 item"),
        (
            "judge.kind=nonsense",
            "judge.kind: should be 'local', 'served', 'adapter', 'prm', 'oracle' or 'cascade', not 'nonsense'",
        ),
        ("judge.kind=", "judge.kind is missing; add `kind` to [judge]"),
        (
            'judge={kind="local",model="m",votes=8}',
            "judge: `votes` above 1 at `temperature` 0 are all the same; set temperature",
        ),
        ("reward.overlong_buffer=97", "reward.overlong_buffer is longer than rollout.max_tokens; make it shorter"),
        ("optim.updates_per_batch=5", "optim.updates_per_batch does not divide the 384 rollouts of a batch"),
        ("optim.micro_batch_size=100", "optim.micro_batch_size does not divide the 384 rollouts of one update"),
        ("reward.judge_recall=0", "reward: `judge_recall` 0 must be above `judge_false_positive_rate` 0"),
        ("reward.judge_false_positive_rate=1", "`judge_recall` 1 must be above `judge_false_positive_rate` 1"),
        # fields of another kind
        (
            "judge.urls=[]",
            '`urls` does not belong to kind "oracle"; it belongs to "served" and "prm"; remove it, or change `kind`',
        ),
        ("judge.votes=8", 'judge.votes: `votes` does not belong to kind "oracle"; it belongs to "local" and "served"'),
        (
            'judge={kind="local",model="m",timeout=9.0}',
            '`timeout` does not belong to kind "local"; it belongs to "serv',
        ),
        ('judge={kind="local",model="m",false_negative_rate=0.5}', 'to kind "local"; it belongs to "oracle"'),
        (
            'reward={kind="outcome",penalty=2}',
            '`penalty` does not belong to kind "outcome"; it belongs to "fapo" and "first_error"; remove',
        ),
        ('reward={kind="outcome",on_unscored="mask"}', 'to kind "outcome"; it belongs to "fapo" and "step_ratio"'),
        # methods and tasks
        ("method=sft", 'method "sft" trains a GenRM; set task = "genrm", or method = "rl"'),
        ("reward=", "reward is missing; add a [reward] table with `kind`"),
        (
            "genrm.template=compact",
            '[genrm] is for task "genrm"; name the prompt of the judge by `template` in [judge]',
        ),
        # missing files
        ("data.prompt=no/solve.txt", "data.prompt: no such file: no/solve.txt; give it relative to the working dir"),
        (
            'judge={kind="local",model="m",template="own.txt"}',
            "judge.template: no such file: own.txt; give it relative to the working dir",
        ),
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


GENRM = {
    "name": "judge",
    "task": "genrm",
    "model": {"path": "miniature:genrm"},
    "data": {"train": "miniature:critic-train"},
    "rollout": {"max_tokens": 80},
    "reward": {"kind": "genrm_step"},
    "optim": {"steps": 20, "learning_rate": 1e-4},
}


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "marked.toml").write_text(BASE, encoding="utf-8-sig")
    assert load(tmp_path / "marked.toml").name == "small"


def test_the_config_of_a_genrm() -> None:
    assert from_dict(GENRM).genrm == GenRMConfig("locate")
    assert from_dict(GENRM | {"genrm": {"template": "compact"}}).genrm == GenRMConfig("compact")
    sft = {key: value for key, value in GENRM.items() if key != "reward"} | {"method": "sft"}
    assert from_dict(sft).reward is None
    for table in (GENRM, sft):
        assert from_dict(to_dict(from_dict(table))) == from_dict(table)


@pytest.mark.parametrize(
    "changed, message",
    [
        (
            {"judge": {"kind": "oracle"}},
            r'task "genrm" has no \[judge\]; name the prompt .* by `template` in \[genrm\]',
        ),
        ({"method": "sft"}, r'method "sft" has no reward; remove the \[reward\] table'),
        (
            {"method": "sft", "reward": None, "data": GENRM["data"] | {"label_noise": 0.1}},
            "use `fapo critiques --label-noise`",
        ),
        ({"reward": None}, r"reward is missing; add a \[reward\] table with `kind`"),
    ],
)
def test_mistakes_in_the_config_of_a_genrm(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(GENRM | changed)


def test_the_filter_keeps_rollouts_of_a_group(path: Path) -> None:
    kind = "reward.kind=filter"
    assert load(path, [kind, "reward.keep=8"]).reward == FilterReward(keep=8)
    with pytest.raises(ConfigError, match=r"reward.keep 9 is larger than rollout.group_size 8, .*; make it smaller"):
        load(path, [kind, "reward.keep=9"])
    for value in ("", "1"):
        with pytest.raises(ConfigError, match=r"reward.keep"):
            load(path, [kind, f"reward.keep={value}"])


FULL = BASE.replace('kind = "fapo"', 'kind = "fapo"\npenalty = 2.0\noverlong_buffer = 8').replace(
    'kind = "oracle"',
    'kind = "local"\nmodel = "miniature:genrm"\ntemplate = "compact"\nvotes = 3\ntemperature = 0.6\nall = true',
)


@pytest.mark.parametrize(
    "overrides, reward, judge",
    [
        (["reward.kind=outcome", "judge="], OutcomeReward(overlong_buffer=8), None),
        (["reward.kind=fapo"], FapoReward(penalty=2.0, overlong_buffer=8), ...),
        (["judge.kind=oracle"], ..., OracleJudge(all=True)),
        (["judge.kind=oracle", "judge.false_negative_rate=0.5"], ..., OracleJudge(all=True, false_negative_rate=0.5)),
        (["reward.kind=outcome", "reward.kind=step_ratio"], StepRatioReward(overlong_buffer=8), ...),
        (
            ["judge.kind=served", 'judge.urls=["http://x/v1"]', "judge.model=m"],
            ...,
            ServedJudge(urls=("http://x/v1",), model="m", template="compact", votes=3, temperature=0.6, all=True),
        ),
    ],
)
def test_a_kind_on_the_command_line_drops_what_the_file_says_of_another(tmp_path, overrides, reward, judge) -> None:
    file = tmp_path / "full.toml"
    file.write_text(FULL, encoding="utf-8")
    before, config = load(file), load(file, overrides)
    assert config.reward == (before.reward if reward is ... else reward)
    assert config.judge == (before.judge if judge is ... else judge)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (
            ["reward.kind=outcome", "reward.penalty=1"],
            r'"reward\.penalty=1": .* not belong to kind "outcome"; it belongs to "fapo"',
        ),
        (["reward.penalty=1", "reward.kind=outcome"], '`penalty` does not belong to kind "outcome"'),
        (["judge.kind=oracle", "judge.votes=3"], '`votes` does not belong to kind "oracle"'),
        (['judge={kind="local",model="m",votes=2}', "judge.kind=oracle"], '`votes` does not belong to kind "oracle"'),
        (["reward.kind=nonsense"], "reward.kind: should be 'outcome'"),
        (["reward.kind=outcome", "reward.penalti=1"], "did you mean reward.penalty"),
    ],
)
def test_a_field_of_another_kind_on_the_command_line_is_a_mistake(tmp_path, overrides, message) -> None:
    file = tmp_path / "full.toml"
    file.write_text(FULL, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load(file, overrides)


def test_a_field_of_another_kind_in_the_file_is_a_mistake(tmp_path: Path) -> None:
    file = tmp_path / "full.toml"
    file.write_text(FULL.replace('kind = "fapo"', 'kind = "outcome"'), encoding="utf-8")
    with pytest.raises(ConfigError, match=rf'{file}:16: reward\.penalty: `penalty` does not belong to kind "outcome"'):
        load(file)


def test_method_sft_on_the_command_line_drops_the_reward_of_the_file() -> None:
    file = ROOT / "src/fapo/data/miniature/configs/genrm.toml"
    assert load(file, ["method=sft"]).reward is None
    with pytest.raises(ConfigError, match='method "sft" has no reward'):
        load(file, ["method=sft", "reward.kind=genrm_outcome"])


@dataclass(frozen=True)
class Ranged:
    """A record that is not read from TOML."""

    num: Count = 1
    rate: Rate | None = None
    free: int = 0

    def __post_init__(self) -> None:
        check_ranges(self, "fapo something")


def test_ranges_of_records_that_are_not_read_from_toml() -> None:
    assert Ranged(num=3, rate=0.5, free=-1)
    with pytest.raises(ConfigError, match=r"^fapo something: num: should be greater than or equal to 1, not 0$"):
        Ranged(num=0)
    with pytest.raises(ConfigError, match=r"^fapo something: rate: should be less than or equal to 1, not 1\.5$"):
        Ranged(rate=1.5)


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


def test_a_file_with_another_name_is_not_suggested(path: Path) -> None:
    path.with_name("casc.toml").touch()
    with pytest.raises(ConfigError, match=r"polcy\.toml: no such file; give the path of a TOML file"):
        load(path.with_name("polcy.toml"))


def test_missing_files(path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"smal\.toml: no such file; did you mean {path}\?"):
        load(path.with_name("smal.toml"))
    with pytest.raises(ConfigError, match="no such file; give the path of a TOML file"):
        load(path.parent / "nowhere" / "x.toml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(path.parent)


@pytest.mark.parametrize(
    "overrides",
    [[], ["reward.shift=3"], ["reward.kind=outcome", "judge="], ["trl.gradient_checkpointing=true", "data.limit=3"]],
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
    tree = ast.parse(Path(fapo.config.schema.__file__).read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.decorator_list]
    assert {"RewardConfig", "JudgeConfig"} & {node.name for node in classes} == set(), "these are unions"
    assert len(classes) >= 20
    for node in classes:
        for field, after in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign):
                assert isinstance(after, ast.Expr), f"{node.name}.{ast.unparse(field.target)} has no docstring"


def test_known_keys() -> None:
    keys = known_keys()
    assert {"name", "reward", "reward.penalty", "judge.urls", "trl"} <= set(keys)
    assert len(keys) == len(set(keys))


def test_there_are_configs() -> None:
    assert {"genrm_4b", "fapo_7b", "baseline_7b", "fapo_32b", "miniature"} <= set(CONFIGS)


@pytest.mark.parametrize("name", CONFIGS)
def test_shipped_configs_are_found_by_name_in_any_folder(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load(name)
    assert config.name == {"miniature": "fapo", "miniature_genrm": "genrm"}.get(name, name)
    assert from_dict(to_dict(config)) == config
    assert CONFIGS[name].read_text(encoding="utf-8").startswith("# "), "`fapo configs` shows the first line"
    (tmp_path / "mine.toml").write_text(CONFIGS[name].read_text(encoding="utf-8"), encoding="utf-8")
    assert load("mine.toml") == config


@pytest.mark.parametrize("name", CONFIGS)
def test_trl_tables_hold_only_what_trl_knows(name: str) -> None:
    known = pytest.importorskip("trl").GRPOConfig.__dataclass_fields__
    assert set(load(name).trl) <= set(known)


PATHS = """\
name = "paths"
task = "policy"
output = "runs"

[model]
path = "policy"

[data]
train = "data/train.jsonl"
validation = { near = "near.parquet", hub = "owner/name:config", known = "miniature:validation" }
prompt = "ask.md"

[rollout]
max_tokens = 96

[reward]
kind = "fapo"

[judge]
kind = "local"
model = "owner/judge"
template = "./locate"
canaries = "/data/canaries.jsonl"
cache = "cache.sqlite"

[judge.audit.judge]
kind = "served"
urls = ["http://x/v1"]
model = "policy"
template = "locate"
cache = "audit.sqlite"

[optim]
steps = 20
learning_rate = 1e-4
"""
VALUES = {
    "output": "runs",
    "model.path": "policy",
    "data.train": "data/train.jsonl",
    "data.validation.near": "near.parquet",
    "data.prompt": "ask.md",
    "judge.template": "locate",
    "judge.cache": "cache.sqlite",
    "judge.audit.judge.cache": "audit.sqlite",
}
"""Settings of PATHS that are paths."""


def setting(config: Config, key: str) -> object:
    found: object = config
    for part in key.split("."):
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    return found


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write PATHS and its model into a folder, which is beside the working directory."""
    folder, here = tmp_path / "study", tmp_path / "here"
    here.mkdir()
    (folder / "policy").mkdir(parents=True)
    (folder / "paths.toml").write_text(PATHS, encoding="utf-8")
    monkeypatch.chdir(here)
    return folder


@pytest.mark.parametrize("given", ["../study/paths.toml", "absolute"])
def test_paths_in_a_file_are_relative_to_the_file(elsewhere: Path, given: str) -> None:
    config = load(elsewhere / "paths.toml" if given == "absolute" else given)
    folder = elsewhere if given == "absolute" else Path("../study")
    assert {key: setting(config, key) for key in VALUES} == {key: str(folder / value) for key, value in VALUES.items()}
    assert config.judge.model == "owner/judge" and config.judge.canaries == "/data/canaries.jsonl"
    assert config.data.validation["hub"] == "owner/name:config"
    assert config.data.validation["known"] == "miniature:validation"
    audit = config.judge.audit.judge
    assert (audit.model, audit.template) == ("policy", "locate"), "names"


@pytest.mark.parametrize("key", VALUES)
def test_an_empty_path_is_an_error_not_the_folder_of_the_file(elsewhere: Path, key: str) -> None:
    text, found = re.subn(rf'\b({key.rpartition(".")[2]} = )"(\./)?{VALUES[key]}"', r'\1""', PATHS, count=1)
    assert found
    (elsewhere / "paths.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"^\.\./study/paths\.toml:\d+: {key}: .*at least 1 character"):
        load("../study/paths.toml")


@pytest.mark.parametrize("key", VALUES)
def test_paths_in_overrides_are_relative_to_the_working_directory(elsewhere: Path, key: str) -> None:
    assert setting(load("../study/paths.toml", [f'{key}="{VALUES[key]}"']), key) == VALUES[key]


def test_the_name_of_a_served_judge_is_no_path(elsewhere: Path) -> None:
    text = PATHS.replace('"local"', '"served"\nurls = ["http://x/v1"]').replace('"owner/judge"', '"policy"')
    (elsewhere / "paths.toml").write_text(text, encoding="utf-8")
    assert load("../study/paths.toml").judge.model == "policy"


@pytest.mark.parametrize("key", ["data.train", "data.prompt", "data.validation.near"])
def test_a_path_that_is_relative_to_the_working_directory_is_named(elsewhere: Path, key: str) -> None:
    here = Path(VALUES[key])
    here.parent.mkdir(exist_ok=True)
    here.touch()
    with pytest.raises(ConfigError) as error:
        load("../study/paths.toml")
    place, _, wrong = str(error.value).partition(f": {key}: ")
    line = next(i for i, text in enumerate(PATHS.splitlines(), start=1) if f'"{here}"' in text)
    assert place == f"../study/paths.toml:{line}"
    assert wrong.startswith(f"{here} is in the working directory, not at ../study/{here}: ")
    assert wrong.endswith(f'write "../here/{here}"')
    path = elsewhere / here
    path.parent.mkdir(exist_ok=True)
    path.touch()
    assert setting(load("../study/paths.toml"), key) == f"../study/{here}"


@pytest.mark.parametrize(
    "file, overrides, message",
    [
        ("miniature_genrm", ["method=sft"], 'method "sft" runs with --engine trl only'),
        ("fapo_7b", ["judge.overlap=false"], r"judge\.overlap is for --engine trl"),
    ],
)
def test_what_verl_would_ignore_is_refused(file: str, overrides: list[str], message: str) -> None:
    from fapo.verl.overrides import overrides as verl_overrides

    with pytest.raises(ConfigError, match=message):
        verl_overrides(load(file, overrides))


@pytest.mark.parametrize("value", ["0", "-1", "two", "[1]", "true", "1.5", '"2"'])
@pytest.mark.parametrize("name", ["nnodes", "n_gpus_per_node"])
def test_numbers_of_nodes_and_devices_of_verl(name: str, value: str) -> None:
    from fapo.training.preview import preview
    from fapo.verl.overrides import overrides as verl_overrides

    config, place = load_with_places("miniature", [f"verl.trainer.{name}={value}"])
    message = rf"^\[verl\]: trainer\.{name} = .*; give a whole number of at least 1$"
    with pytest.raises(ConfigError, match=message):
        verl_overrides(config)
    with pytest.raises(ConfigError, match=message):
        preview(config, place, "verl")
