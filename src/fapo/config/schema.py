"""The settings of a run: frozen records, read from TOML with `load`. A mistake is an error with line and remedy."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from fapo.errors import ConfigError
from fapo.types import OnUnscored

_PATTERNS = {
    r"^\w[\w.+=-]*$": "be letters, digits and . _ - + = (it names a folder)",
    r"^https?://": "start with http:// or https://",
}
_NAME, _URL = _PATTERNS

# The types of settings that have a range; `check_ranges` holds them for dataclasses that are not read from TOML.
Name = Annotated[str, Field(pattern=_NAME)]
Text = Annotated[str, Field(min_length=1)]
Url = Annotated[str, Field(pattern=_URL)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
TopP = Annotated[float, Field(gt=0, le=1)]
Below1 = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class ModelConfig:
    """The model being trained."""

    path: Text
    """"miniature:policy", "miniature:genrm", a local folder or a Hugging Face id."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the weights."""


@dataclass(frozen=True)
class DataConfig:
    """The problems: for a policy questions, for a GenRM labelled solutions."""

    train: Text
    """What to train on: a file, a Hugging Face id or "miniature:SPLIT"."""
    validation: dict[str, Text] = field(default_factory=dict)
    """What to validate on: name in the metrics -> source."""
    limit: Count | None = None
    """Number of training rows to use, from the first on; unset: all."""
    prompt: Text | None = None
    """Template file of the policy's prompt, with {{problem}}; unset: the problem as it stands."""
    label_noise: Rate = 0.0
    """Rate of training labels that are made wrong, drawn by the run's seed; for a GenRM with method "rl"."""


@dataclass(frozen=True)
class RolloutConfig:
    """How the model in training is sampled."""

    max_tokens: Count
    """Length limit of a response in tokens."""
    num_prompts: Count = 48
    """Prompts of one generation batch."""
    group_size: Annotated[int, Field(ge=2)] = 8
    """Rollouts of one prompt; their rewards are compared with each other."""
    temperature: Positive = 1.0
    """Sampling temperature."""
    top_p: TopP = 1.0
    """Nucleus sampling; 1 = off."""


@dataclass(frozen=True, kw_only=True)
class BaseReward:
    """What all rewards have."""

    overlong_buffer: Natural = 0
    """Number of last tokens before the length limit over which the reward falls linearly by 1; 0 = off."""


@dataclass(frozen=True, kw_only=True)
class OutcomeReward(BaseReward):
    """Plain GRPO, the baseline: +1 for a correct final answer, else -1."""

    kind: Literal["outcome"] = "outcome"
    """Name of the reward."""


@dataclass(frozen=True, kw_only=True)
class JudgedReward(BaseReward):
    """What rewards have that depend on verdicts."""

    on_unscored: OnUnscored = "mask"
    """Treatment of rollouts without a verdict: leave them out of the group, reward correctness alone, or stop."""


@dataclass(frozen=True, kw_only=True)
class FapoReward(JudgedReward):
    """The paper's reward: the outcome minus `penalty` for a flawed positive."""

    kind: Literal["fapo"] = "fapo"
    """Name of the reward."""
    penalty: NonNegative = 1.0
    """lambda of the paper, subtracted from a flawed positive; 2 makes it a plain negative."""
    shift: NonNegative | None = None
    """rho_shift: fully correct per wrong rollout at which flawed positives turn negative; penalty = 2/(shift+1)."""
    judge_recall: Rate = 1.0
    """Recall of the judge: rate of flawed rollouts that it flags. The reward is corrected for a recall below 1."""
    judge_false_positive_rate: Rate = 0.0
    """Rate of fully correct rollouts that the judge flags. The reward is corrected for a rate above 0."""

    def __post_init__(self) -> None:
        if self.shift is not None:
            object.__setattr__(self, "penalty", 2 / (self.shift + 1))
        if self.judge_recall <= self.judge_false_positive_rate:
            raise ConfigError(
                f"`judge_recall` {self.judge_recall:g} must be above `judge_false_positive_rate` "
                f"{self.judge_false_positive_rate:g}: otherwise the judge knows no more than chance; use another judge"
            )


@dataclass(frozen=True, kw_only=True)
class StepRatioReward(JudgedReward):
    """Ablation of the paper: the outcome plus the ratio of steps before the first wrong one."""

    kind: Literal["step_ratio"] = "step_ratio"
    """Name of the reward."""


@dataclass(frozen=True, kw_only=True)
class GenRMStepReward(BaseReward):
    """Step-wise reward of a GenRM: +1 or -1 for the label, minus the distance to the first wrong step."""

    kind: Literal["genrm_step"] = "genrm_step"
    """Name of the reward."""


@dataclass(frozen=True, kw_only=True)
class GenRMOutcomeReward(BaseReward):
    """Outcome reward of a GenRM: +1 or -1 for the label alone."""

    kind: Literal["genrm_outcome"] = "genrm_outcome"
    """Name of the reward."""


PolicyReward = OutcomeReward | FapoReward | StepRatioReward
"""Rewards of solutions, for task "policy"."""
GenRMReward = GenRMStepReward | GenRMOutcomeReward
"""Rewards of critiques, for task "genrm"."""
RewardConfig = PolicyReward | GenRMReward
"""The [reward] table; its `kind` decides which of these records it is."""


@dataclass(frozen=True, kw_only=True)
class BaseJudge:
    """What all judges have."""

    all: bool = False
    """Judge the wrong rollouts too, not only the correct ones."""
    canaries: Text | None = None
    """Labelled solutions (a file, a Hugging Face id or "miniature:critic-test") to slip in among the rollouts."""
    canary_rate: Rate = 0.05
    """Canaries per rollout that is judged; their precision, recall and F1 are metrics."""
    canary_min_f1: Rate = 0.0
    """Lowest F1 on the last 64 canaries (at least 32) at which the run continues; below it stops; 0 = never."""


@dataclass(frozen=True, kw_only=True)
class ModelJudge(BaseJudge):
    """What judges have that are language models."""

    model: Text
    """Path of the local model ("miniature:genrm", a folder, a Hugging Face id), or the name the servers know it by."""
    template: Text = "locate"
    """Prompt: "locate", "yes_no", "compact" (the miniature's), or the path of a template file."""
    temperature: NonNegative = 0.0
    """Sampling temperature; 0 = greedy."""
    top_p: TopP = 1.0
    """Nucleus sampling; 1 = off."""
    max_tokens: Count = 1024
    """Length limit of a critique in tokens."""
    votes: Count = 1
    """Number of critiques for each rollout; the majority is the verdict."""
    min_words: Natural = 0
    """A solution with fewer words outside its boxed answers is flagged without a judgement; 0 = off, as the paper."""
    cache: Text | None = None
    """SQLite file that keeps every critique; what is in it is not asked for again. Unset: none."""
    max_failure_rate: Rate = 0.5
    """Highest failure rate, of the last 100 judgements or of a larger batch, at which the run continues; 1: always."""

    def __post_init__(self) -> None:
        if self.votes > 1 and self.temperature == 0:
            raise ConfigError("`votes` above 1 at `temperature` 0 are all the same; set temperature, such as 0.6")


@dataclass(frozen=True, kw_only=True)
class LocalJudge(ModelJudge):
    """A model that is loaded into the process of the trainer."""

    kind: Literal["local"] = "local"
    """Where the judge runs."""


@dataclass(frozen=True, kw_only=True)
class ServedJudge(ModelJudge):
    """A model behind OpenAI-compatible servers."""

    kind: Literal["served"] = "served"
    """Where the judge runs."""
    urls: Annotated[tuple[Url, ...], Field(min_length=1)]
    """Base addresses of the servers, such as "http://localhost:8000/v1"; requests are spread over them."""
    concurrency: Count = 64
    """Number of requests under way at once."""
    timeout: Positive = 120.0
    """Seconds a request may take."""
    deadline: Positive | None = None
    """Seconds a judgement may take, all tries of its request together; unset: no limit."""
    overlap: bool = True
    """Judge a rollout while others are being written; TRL only. Set it to false where judging slows them down."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if any("@" in url or "?" in url for url in self.urls):
            raise ConfigError("`urls` must not hold a name, password or key: they are written down; set FAPO_API_KEY")


@dataclass(frozen=True, kw_only=True)
class OracleJudge(BaseJudge):
    """The exact checker of the miniature."""

    kind: Literal["oracle"] = "oracle"
    """Where the judge runs."""
    false_negative_rate: Rate = 0.0
    """Rate of flawed rollouts that the oracle passes, to see the effect of a worse judge."""
    false_positive_rate: Rate = 0.0
    """Rate of fully correct rollouts that the oracle flags, at a random step."""


JudgeConfig = LocalJudge | ServedJudge | OracleJudge
"""The [judge] table; its `kind` decides which of these records it is."""


@dataclass(frozen=True)
class GenRMConfig:
    """The GenRM being trained, for task "genrm"."""

    template: Text = "locate"
    """Prompt: "locate", "yes_no", "compact" (the miniature's), or the path of a template file."""


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer (AdamW, constant learning rate after the warm-up) and the clipped loss."""

    steps: Count
    """Generation batches to train on."""
    learning_rate: Positive
    """Learning rate after the warm-up."""
    warmup_steps: Natural = 10
    """Steps (generation batches, like `steps`) of linear warm-up."""
    weight_decay: NonNegative = 0.0
    """AdamW's weight decay."""
    betas: tuple[Below1, Below1] = (0.9, 0.999)
    """AdamW's beta1 and beta2."""
    clip_low: Below1 = 0.2
    """Clipping of the probability ratio from below, at 1 - clip_low."""
    clip_high: NonNegative = 0.28
    """Clipping of the probability ratio from above, at 1 + clip_high."""
    max_grad_norm: Positive = 1.0
    """Gradients are clipped to this norm."""
    updates_per_batch: Count = 1
    """Number of optimizer steps on one generation batch, each on an equal part of its rollouts."""
    micro_batch_size: Count | None = None
    """Rollouts in one forward pass on one device; unset: all rollouts of an update."""


@dataclass(frozen=True)
class ValidationConfig:
    """How often and how the model in training is measured, and when it is saved."""

    every: Count = 10
    """Steps between two validations; the first is before training."""
    num_samples: Count = 1
    """Responses to each problem."""
    temperature: NonNegative = 1.0
    """Sampling temperature; 0 = greedy."""
    top_p: TopP = 1.0
    """Nucleus sampling; 1 = off."""
    limit: Count | None = None
    """Number of problems of each set to use, from the first on; unset: all."""
    save_every: Count = 10
    """Steps between two checkpoints."""


@dataclass(frozen=True)
class Config:
    """One run: what is trained, on what, for which reward."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    name: Name
    """Name of the run and of its folder."""
    task: Literal["policy", "genrm"]
    """policy: train a model that solves problems; genrm: train a judge."""
    model: ModelConfig
    """The model being trained."""
    data: DataConfig
    """Training and validation problems."""
    rollout: RolloutConfig
    """Sampling."""
    optim: OptimConfig
    """Optimizer and loss."""
    method: Literal["rl", "sft"] = "rl"
    """rl: reinforcement learning with a reward; sft: a GenRM imitates the critiques in its data, without a reward."""
    reward: Annotated[RewardConfig, Field(discriminator="kind")] | None = None
    """Reward; required with method "rl"."""
    judge: Annotated[JudgeConfig, Field(discriminator="kind")] | None = None
    """The judge of a policy's rollouts; unset: none."""
    genrm: GenRMConfig | None = None
    """Prompt of the GenRM being trained; unset with task "genrm": the defaults."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """Validation and checkpoints."""
    seed: Natural = 0
    """Seeds sampling, shuffling and initialisation."""
    output: Text = "runs"
    """The run folder is output/name."""
    trl: dict[str, Any] = field(default_factory=dict)
    """Passed verbatim to trl.GRPOConfig."""
    verl: dict[str, Any] = field(default_factory=dict)
    """Passed verbatim to verl as overrides."""

    def __post_init__(self) -> None:
        for table in ("trl", "verl"):
            if secret := next(_secrets(getattr(self, table)), None):
                raise ConfigError(f"{table}.{secret} would be written into the run folder; set it in the environment")
        self._check_task()
        rollout, optim = self.rollout, self.optim
        if self.reward and self.reward.overlong_buffer > rollout.max_tokens:
            raise ConfigError("reward.overlong_buffer is longer than rollout.max_tokens; make it shorter")
        num_rollouts = rollout.num_prompts * rollout.group_size
        share, rest = divmod(num_rollouts, optim.updates_per_batch)
        if rest:
            raise ConfigError(f"optim.updates_per_batch does not divide the {num_rollouts} rollouts of a batch")
        if share % (optim.micro_batch_size or share):
            raise ConfigError(f"optim.micro_batch_size does not divide the {share} rollouts of one update")

    def _check_task(self) -> None:
        """Raise ConfigError for tables that do not go with the task and the method; fill in [genrm]."""
        reward, trains_genrm = self.reward, self.task == "genrm"
        if self.method == "sft" and not trains_genrm:
            raise ConfigError('method "sft" trains a GenRM; set task = "genrm", or method = "rl"')
        if self.method == "sft" and reward:
            raise ConfigError('method "sft" has no reward; remove the [reward] table')
        if self.method == "rl" and not reward:
            raise ConfigError("reward is missing; add a [reward] table with `kind`")
        if reward and isinstance(reward, GenRMReward) != trains_genrm:
            suited = "genrm_step or genrm_outcome" if trains_genrm else "outcome, fapo or step_ratio"
            raise ConfigError(f'reward.kind "{reward.kind}" does not go with task "{self.task}"; use {suited}')
        if trains_genrm and self.judge:
            raise ConfigError('task "genrm" has no [judge]; name the prompt of the GenRM by `template` in [genrm]')
        if self.genrm and not trains_genrm:
            raise ConfigError('[genrm] is for task "genrm"; name the prompt of the judge by `template` in [judge]')
        if isinstance(reward, JudgedReward) and self.judge is None:
            raise ConfigError(f'reward.kind "{reward.kind}" needs a judge; add a [judge] table with `kind`')
        if self.data.label_noise and self.method == "sft":
            raise ConfigError('data.label_noise does nothing with method "sft"; fapo critiques has --label-noise')
        if self.data.label_noise and not trains_genrm:
            raise ConfigError('data.label_noise does nothing with task "policy"; remove it')
        if trains_genrm and self.genrm is None:
            object.__setattr__(self, "genrm", GenRMConfig())


_SECRET = re.compile(r"(?:api_?key|hub_token|auth_?token|access_?token|secret|password)$", re.IGNORECASE)


def _secrets(table: Mapping[str, Any]) -> Iterator[str]:
    """Dotted keys of a table passed on verbatim that by their name hold a secret, and are set."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from (f"{key}.{inner}" for inner in _secrets(value))
        elif isinstance(value, str) and value and _SECRET.search(key):
            yield key


def _by_kind(union: Any) -> dict[str, type]:
    """The records of a union by their `kind`."""
    return {get_args(get_type_hints(record)["kind"])[0]: record for record in get_args(union)}


_KINDS = {"reward": _by_kind(RewardConfig), "judge": _by_kind(JudgeConfig)}
"""Table -> kind -> its record."""
_FORMER = {
    "reward.judge_alarms": "its name is reward.judge_false_positive_rate now",
    "reward.located": "it was removed, CHANGELOG.md says why; delete it",
    "reward.follow_rho": "it was removed, CHANGELOG.md says why; delete it",
    "judge.misses": "its name is judge.false_negative_rate now",
    "judge.alarms": "its name is judge.false_positive_rate now",
    "judge.canary_share": "its name is judge.canary_rate now",
    "judge.max_failed_share": "its name is judge.max_failure_rate now",
    "judge.journal": "its name is judge.cache now",
    "judge.early_stop": "it was removed, CHANGELOG.md says why; delete it",
}
"""Keys of earlier versions, for the messages only."""


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a TOML file and replace single settings.

    Args:
        path: TOML file.
        overrides: Settings "table.key=value"; "table.key=" removes one. Values are TOML values; a bare word is a
            string. Where an override sets another `kind` of reward or judge, or method "sft", settings of the file
            that do not belong to it are dropped; settings of other overrides are not, they are errors.

    Returns:
        The checked config.

    Raises:
        ConfigError: The file cannot be read, or a setting cannot be used.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except FileNotFoundError:
        near = get_close_matches(path.name, [p.name for p in path.parent.glob("*.toml")], n=1)
        remedy = f"did you mean {path.with_name(near[0])}?" if near else "give the path of a TOML file"
        raise ConfigError(f"{path}: no such file; {remedy}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; give the path of a TOML file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text; give the path of a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}; text values need quotes") from None
    origins = {key: f"{path}:{line}" for key, line in _lines(text)}
    overridden = {_apply(table, override, str(path)): f'{path}, override "{override}"' for override in overrides}
    _drop_unsuited(table, overridden.keys())
    origins |= overridden
    config = from_dict(table, str(path), origins)
    for key, template in (
        ("data.prompt", config.data.prompt),
        ("judge.template", config.judge.template if isinstance(config.judge, ModelJudge) else None),
        ("genrm.template", config.genrm.template if config.genrm else None),
    ):
        if template and template.endswith(".txt") and not Path(template).is_file():
            place = _place(key, str(path), origins)
            raise ConfigError(f"{place}: {key}: no such file: {template}; give it relative to the working directory")
    return config


def read_config(path: str | Path) -> Config:
    """Return the config in a TOML file, or in the config.json of a run folder. Raise ConfigError if there is none."""
    path = Path(path)
    if path.suffix != ".json":
        return load(path)
    try:
        return from_dict(json.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}; give a TOML file or a run's config.json") from None


def from_dict(table: Mapping[str, Any], source: str = "config", origins: Mapping[str, str] | None = None) -> Config:
    """Check a nested table of settings.

    Args:
        table: Nested table, such as `to_dict` returns.
        source: Name of the table for messages.
        origins: Dotted key -> where it was set, for messages.

    Returns:
        The checked config.

    Raises:
        ConfigError: A setting cannot be used.
    """
    reward = table.get("reward")
    penalty, shift = (reward.get(key) for key in ("penalty", "shift")) if isinstance(reward, dict) else (None, None)
    try:
        # JSON, since pydantic takes lists for tuples there although it is strict otherwise.
        config = TypeAdapter(Config).validate_json(json.dumps(table, default=str))
    except ValidationError as error:
        raise ConfigError("\n".join(_message(e, source, origins or {}) for e in error.errors())) from None
    if isinstance(config.reward, FapoReward) and shift is not None and penalty not in (None, config.reward.penalty):
        place = _place("reward.shift", source, origins or {})
        raise ConfigError(f"{place}: reward.shift and reward.penalty exclude each other; remove one of them")
    return config


def judge_config(table: Mapping[str, Any], source: str) -> JudgeConfig:
    """Check the settings of a judge alone.

    Args:
        table: The settings, as in a [judge] table.
        source: Where they were given, for messages.

    Returns:
        The checked record of the judge.

    Raises:
        ConfigError: A setting cannot be used.
    """
    judge: Any = Annotated[JudgeConfig, Field(discriminator="kind")]
    try:
        return cast(JudgeConfig, TypeAdapter(judge).validate_json(json.dumps(table, default=str)))
    except ValidationError as error:
        errors = [{**e, "loc": ("judge", *e["loc"])} for e in error.errors()]
        raise ConfigError("\n".join(_message(e, source, {}) for e in errors)) from None


def check_ranges(record: Any, source: str) -> None:
    """Check the fields of a dataclass that have one of the types above, such as `Count`.

    Args:
        record: The dataclass instance; the check is its `__post_init__`.
        source: Name of the command or class for messages.

    Raises:
        ConfigError: A value is outside the range of its type.
    """
    for name, adapter in _ranges(type(record)).items():  # type: ignore[arg-type]  # a class can be hashed
        try:
            adapter.validate_python(getattr(record, name))
        except ValidationError as error:
            raise ConfigError(_message({**error.errors()[0], "loc": (name,)}, source, {})) from None


@lru_cache
def _ranges(record: Any) -> dict[str, TypeAdapter[Any]]:
    """The fields of a dataclass whose types have ranges."""
    plain, whole = get_type_hints(record), get_type_hints(record, include_extras=True)
    return {f.name: TypeAdapter(whole[f.name]) for f in fields(record) if whole[f.name] != plain[f.name]}


def to_dict(config: Config) -> dict[str, Any]:
    """Every setting, defaults included, as a nested table for the run folder; `from_dict` reads it back."""
    return asdict(config)


def known_keys(cls: type = Config, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of all settings, tables included: "name", ..., "model", "model.path", ..."""
    yield from dict.fromkeys(_known_keys(cls, prefix))


def _known_keys(cls: type, prefix: str) -> Iterator[str]:
    hints = get_type_hints(cls)
    for f in fields(cls):
        yield prefix + f.name
        for inner in (hints[f.name], *get_args(hints[f.name])):
            if is_dataclass(inner) and isinstance(inner, type):
                yield from _known_keys(inner, f"{prefix}{f.name}.")


def _apply(table: dict[str, Any], override: str, source: str) -> str:
    """Put one override into the table; returns its dotted key."""
    key, equals, value = (part.strip() for part in override.partition("="))
    *parents, last = key.split(".")
    if not equals or not all((*parents, last)):
        raise ConfigError(f'{source}, override "{override}": not of the form table.key=value')
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise ConfigError(f'{source}, override "{override}": {parent} is a value, not a table')
    if not value:
        table.pop(last, None)
        return key
    try:
        table[last] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError as error:
        if value[0] in "[{\"'":
            raise ConfigError(f'{source}, override "{override}": not a TOML value: {error}') from None
        table[last] = value
    return key


def _drop_unsuited(table: dict[str, Any], overridden: Collection[str]) -> None:
    """Drop the settings of the file that do not belong to a kind or method that an override has set."""
    for name, kinds in _KINDS.items():
        settings = table.get(name)
        if f"{name}.kind" not in overridden or name in overridden or not isinstance(settings, dict):
            continue
        if record := kinds.get(str(settings.get("kind"))):
            for key in set().union(*map(_names, kinds.values())) - _names(record):
                if f"{name}.{key}" not in overridden:
                    settings.pop(key, None)
    rewarded = any(key.partition(".")[0] == "reward" for key in overridden)
    if "method" in overridden and table.get("method") == "sft" and not rewarded:
        table.pop("reward", None)


def _lines(text: str) -> Iterator[tuple[str, int]]:
    """Dotted keys of a TOML text with the lines they stand on."""
    header = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if match := re.match(r"\s*\[\s*([\w.\"-]+)\s*\]", line):
            header = match[1].replace('"', "") + "."
            yield header[:-1], number
        elif match := re.match(r"\s*([\w.\"-]+)\s*=", line):
            yield header + match[1].replace('"', ""), number


def _place(key: str, source: str, origins: Mapping[str, str]) -> str:
    """Where a key, or else the nearest table around it, was set."""
    while key and key not in origins:
        key = key.rpartition(".")[0]
    return origins.get(key, source)


def _message(error: Any, source: str, origins: Mapping[str, str]) -> str:
    """One line for one of pydantic's errors: place, key, what is wrong, remedy."""
    kind, loc = "", error["loc"]
    if len(loc) > 1 and loc[0] in _KINDS:  # pydantic puts the kind between the table and the key
        kind, loc = loc[1], (loc[0], *loc[2:])
    key = ".".join(map(str, loc))
    table, _, last = key.rpartition(".")
    place = _place(key, source, origins)
    match error["type"]:
        case "unexpected_keyword_argument":
            if owners := [f'"{o}"' for o, record in _KINDS.get(table, {}).items() if last in _names(record)]:
                wrong = f'`{last}` does not belong to kind "{kind}"; it belongs to {" and ".join(owners)}'
                return f"{place}: {key}: {wrong}; remove it, or change `kind`"
            return f"{place}: {key}: unknown key; {_suggestion(key)}"
        case "missing" if last.isdigit():
            return f"{place}: {table}: has too few values; add one"
        case "too_long":
            return f"{place}: {key}: has too many values; {error['ctx']['max_length']} are expected"
        case "missing":
            return f"{place}: {key} is missing; add `{last}`" + (f" to [{table}]" if table else "")
        case "value_error":
            return f"{place}: {key}{': ' if key else ''}{error['ctx']['error']}"
        case "union_tag_not_found":
            return f"{place}: {key}.kind is missing; add `kind` to [{key}]"
        case "union_tag_invalid":
            found, known = error["ctx"]["tag"], " or".join(error["ctx"]["expected_tags"].rsplit(",", 1))
            hint = '; to imitate critiques set method = "sft" and remove [reward]' if found == "genrm_sft" else ""
            return f"{_place(key + '.kind', source, origins)}: {key}.kind: should be {known}, not {found!r}{hint}"
        case "dataclass_type" | "dict_type":
            return f"{place}: {key}: should be a table, not {error['input']!r}; write [{key}]"
        case "string_pattern_mismatch":
            return f"{place}: {key}: should {_PATTERNS[error['ctx']['pattern']]}, not {error['input']!r}"
    message = "should" + error["msg"].partition("should")[2] if "should" in error["msg"] else error["msg"]
    return f"{place}: {key}: {message}, not {error['input']!r}"


def _names(record: type) -> set[str]:
    return {f.name for f in fields(record)}


def _suggestion(key: str) -> str:
    """The closest known key: by the whole dotted key, by the same last part in another table, by a near last part."""
    if key in _FORMER:
        return _FORMER[key]
    known = list(known_keys())
    table, _, last = key.rpartition(".")
    siblings = [k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == table]
    by_last = {k.rpartition(".")[2]: k for k in reversed(known)}
    if near := get_close_matches(key, known, n=1, cutoff=0.8):
        return f"did you mean {near[0]}?"
    if last not in by_last and (near := get_close_matches(last, siblings, n=1)):
        return f"did you mean {table + '.' if table else ''}{near[0]}?"
    if near := get_close_matches(last, by_last, n=1):
        return f"did you mean {by_last[near[0]]}?"
    return f"known here: {', '.join(siblings)}"
