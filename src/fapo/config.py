"""The settings of a run: frozen records, read from TOML with `load`. Mistakes are told with line and remedy."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from fapo.errors import ConfigError
from fapo.types import OnUnscored

_PATTERNS = {
    r"^\w[\w.+=-]*$": "be letters, digits and . _ - + = (it names a folder)",
    r"^https?://": "start with http:// or https://",
}
_NAME, _URL = _PATTERNS

Name = Annotated[str, Field(pattern=_NAME)]
Text = Annotated[str, Field(min_length=1)]
Url = Annotated[str, Field(pattern=_URL)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
TopP = Annotated[float, Field(gt=0, le=1)]
Below1 = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]


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
    """Use only the first so many training rows; unset: all."""
    prompt: Text | None = None
    """Template file of the policy's prompt, with {{problem}}; unset: the problem as it stands."""
    label_noise: Share = 0.0
    """For a GenRM trained by reward: share of the training labels that are made wrong, drawn by the run's seed."""


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


@dataclass(frozen=True)
class RewardConfig:
    """What a rollout earns."""

    kind: Literal["outcome", "fapo", "step_ratio", "genrm_step", "genrm_outcome", "genrm_sft"]
    """outcome: GRPO baseline; fapo: minus `penalty` when flawed; step_ratio: ablation; genrm_*: training a judge, which
    genrm_sft does without a reward, by imitation of the critiques in the data."""
    penalty: NonNegative = 1.0
    """lambda of the paper, subtracted from a flawed positive; 2 makes it a plain negative."""
    shift: NonNegative | None = None
    """rho_shift: fully correct per wrong rollout at which flawed positives turn negative; penalty = 2/(shift+1)."""
    judge_recall: Share = 1.0
    """kind "fapo": share of the flawed that the judge flags; with judge_alarms corrects the reward for its errors."""
    judge_alarms: Share = 0.0
    """kind "fapo": share of the sound that the judge flags."""
    on_unscored: OnUnscored = "mask"
    """Rollouts without a verdict: leave them out of the group, reward correctness alone, or stop."""
    overlong_buffer: Natural = 0
    """Last tokens before the length limit over which the reward falls linearly by 1; 0 = off."""

    def __post_init__(self) -> None:
        if self.shift is not None:
            object.__setattr__(self, "penalty", 2 / (self.shift + 1))


@dataclass(frozen=True)
class JudgeConfig:
    """Who says which correct rollouts are flawed."""

    kind: Literal["local", "served", "oracle"]
    """local: a model in this process; served: OpenAI-compatible servers; oracle: the miniature's exact checker."""
    model: str = ""
    """Path of the local model, or the name the servers know it by."""
    urls: tuple[Url, ...] = ()
    """Base addresses of the servers, such as "http://localhost:8000/v1"; requests are spread over them."""
    template: Text = "locate"
    """Prompt: "locate", "yes_no", "compact" (the miniature's), or a template file of one's own."""
    temperature: NonNegative = 0.0
    """Sampling temperature; 0 = greedy."""
    top_p: TopP = 1.0
    """Nucleus sampling; 1 = off."""
    max_tokens: Count = 1024
    """Length limit of a critique in tokens."""
    votes: Count = 1
    """Critiques for each rollout; the majority is the verdict."""
    concurrency: Count = 64
    """Requests under way at once."""
    timeout: Positive = 120.0
    """Seconds a request may take."""
    deadline: Positive | None = None
    """Seconds a judgement may take, all tries of its request together; unset: no limit."""
    overlap: bool = True
    """kind "served", TRL: ask about a rollout while others are being written; false where that would slow them down."""
    min_words: Natural = 0
    """A solution with fewer words outside its boxes is flagged without asking; 0 = off, as in the paper."""
    all: bool = False
    """Judge the wrong rollouts too, not only the correct ones."""
    misses: Share = 0.0
    """kind "oracle" only: share of the flawed rollouts it passes, to see what a worse judge does."""
    alarms: Share = 0.0
    """kind "oracle" only: share of the sound rollouts it flags, at some step."""
    cache: Text | None = None
    """SQLite file that keeps every critique; what is in it is not asked for again. Unset: none."""
    canaries: Text | None = None
    """Labelled solutions (a file, a Hugging Face id or "miniature:critic-test") to slip in among the rollouts."""
    canary_share: Share = 0.05
    """Canaries for each rollout that is judged; their precision, recall and F1 are metrics."""
    canary_min_f1: Share = 0.0
    """The run stops, to be resumed, if F1 on the last 64 canaries (at least 32) is lower; 0 = never."""
    max_failed_share: Share = 0.5
    """The run stops, to be resumed, if more of a batch's judgements (at least 8) fail; 1 = never."""

    def __post_init__(self) -> None:
        if self.kind == "served" and not (self.urls and self.model):
            raise ValueError('kind "served" needs `urls` and `model`: the servers\' addresses and the name they serve')
        if any("@" in url or "?" in url for url in self.urls):
            raise ValueError("`urls` must not hold a name, password or key: they are written down; set FAPO_API_KEY")
        if self.kind == "oracle" and self.min_words:
            raise ValueError('`min_words` spares a judge that reads; it does not go with kind "oracle"')
        if self.kind == "local" and not self.model:
            raise ValueError('kind "local" needs `model`: a local folder, "miniature:genrm" or a Hugging Face id')
        if self.kind != "oracle" and (self.misses or self.alarms):
            raise ValueError('`misses` and `alarms` make an oracle worse; they need kind "oracle"')
        if self.votes > 1 and self.temperature == 0:
            raise ValueError("`votes` above 1 at `temperature` 0 are all the same; set temperature, such as 0.6")


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
    """The probability ratio is clipped below at 1 - clip_low ..."""
    clip_high: NonNegative = 0.28
    """... and above at 1 + clip_high."""
    max_grad_norm: Positive = 1.0
    """Gradients are clipped to this norm."""
    updates_per_batch: Count = 1
    """Optimizer steps on one generation batch, each on an equal share of its rollouts."""
    micro_batch_size: Count | None = None
    """Rollouts in one forward pass on one device; unset: the whole share of an update."""


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
    """Use only the first so many problems of each set; unset: all."""
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
    reward: RewardConfig
    """Reward."""
    optim: OptimConfig
    """Optimizer and loss."""
    judge: JudgeConfig | None = None
    """The judge of the rollouts; unset: none."""
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
                raise ValueError(f"{table}.{secret} would be written into the run folder; set it in the environment")
        kind, rollout, optim = self.reward.kind, self.rollout, self.optim
        if kind.startswith("genrm_") != (self.task == "genrm"):
            suited = "genrm_step, genrm_outcome or genrm_sft" if self.task == "genrm" else "outcome, fapo or step_ratio"
            raise ValueError(f'reward.kind "{kind}" does not go with task "{self.task}"; use {suited}')
        if kind in ("fapo", "step_ratio") and self.judge is None:
            raise ValueError(f'reward.kind "{kind}" needs a judge; add a [judge] table with `kind`')
        if self.data.label_noise and kind not in ("genrm_step", "genrm_outcome"):
            remedy = "fapo critiques has --label-noise" if kind == "genrm_sft" else "remove it"
            raise ValueError(f'data.label_noise does nothing with reward.kind "{kind}"; {remedy}')
        if self.reward.overlong_buffer > rollout.max_tokens:
            raise ValueError("reward.overlong_buffer is longer than rollout.max_tokens; make it shorter")
        num_rollouts = rollout.num_prompts * rollout.group_size
        share, rest = divmod(num_rollouts, optim.updates_per_batch)
        if rest:
            raise ValueError(f"optim.updates_per_batch does not divide the {num_rollouts} rollouts of a batch")
        if share % (optim.micro_batch_size or share):
            raise ValueError(f"optim.micro_batch_size does not divide the {share} rollouts of one update")


_SECRET = re.compile(r"(?:api_?key|hub_token|auth_?token|access_?token|secret|password)$", re.IGNORECASE)


def _secrets(table: Mapping[str, Any]) -> Iterator[str]:
    """Dotted keys of a table passed on verbatim that by their name hold a secret, and are set."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from (f"{key}.{inner}" for inner in _secrets(value))
        elif isinstance(value, str) and value and _SECRET.search(key):
            yield key


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a TOML file; each override "table.key=value" replaces one setting, "table.key=" removes it.

    Values of overrides are TOML values; a bare word is a string. Raises ConfigError.
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
    for override in overrides:
        origins[_apply(table, override, str(path))] = f'{path}, override "{override}"'
    config = from_dict(table, str(path), origins)
    for key, template in (
        ("data.prompt", config.data.prompt),
        ("judge.template", config.judge and config.judge.template),
    ):
        if template and template.endswith(".txt") and not Path(template).is_file():
            place = _place(key, str(path), origins)
            raise ConfigError(f"{place}: {key}: no such file: {template}; give it relative to the working directory")
    return config


def read_config(path: str | Path) -> Config:
    """Read a TOML file, or the config.json of a run folder. Raises ConfigError."""
    path = Path(path)
    if path.suffix != ".json":
        return load(path)
    try:
        return from_dict(json.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}; give a TOML file or a run's config.json") from None


def from_dict(table: Mapping[str, Any], source: str = "config", origins: Mapping[str, str] | None = None) -> Config:
    """Check a nested table, such as `to_dict` gives; `origins` maps dotted keys to places for the messages."""
    reward = table.get("reward")
    penalty, shift = (reward.get(key) for key in ("penalty", "shift")) if isinstance(reward, dict) else (None, None)
    try:
        # JSON, since pydantic takes lists for tuples there although it is strict otherwise.
        config = TypeAdapter(Config).validate_json(json.dumps(table, default=str))
    except ValidationError as error:
        raise ConfigError("\n".join(_message(e, source, origins or {}) for e in error.errors())) from None
    if shift is not None and penalty not in (None, config.reward.penalty):
        place = _place("reward.shift", source, origins or {})
        raise ConfigError(f"{place}: reward.shift and reward.penalty exclude each other; remove one of them")
    return config


def judge_config(table: Mapping[str, Any], source: str) -> JudgeConfig:
    """Check the settings of a judge alone; `source` says in messages where they were given."""
    try:
        return TypeAdapter(JudgeConfig).validate_json(json.dumps(table, default=str))
    except ValidationError as error:
        raise ConfigError("\n".join(_message(e, source, {}) for e in error.errors())) from None


def to_dict(config: Config) -> dict[str, Any]:
    """Every setting, defaults included, as a nested table for the run folder; `from_dict` reads it back."""
    return asdict(config)


def known_keys(cls: type = Config, prefix: str = "") -> Iterator[str]:
    """Dotted keys of all settings, tables included: "name", ..., "model", "model.path", ..."""
    hints = get_type_hints(cls)
    for f in fields(cls):
        yield prefix + f.name
        for inner in (hints[f.name], *get_args(hints[f.name])):
            if is_dataclass(inner) and isinstance(inner, type):
                yield from known_keys(inner, f"{prefix}{f.name}.")


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
    key = ".".join(map(str, error["loc"]))
    table, _, last = key.rpartition(".")
    place = _place(key, source, origins)
    match error["type"]:
        case "unexpected_keyword_argument":
            return f"{place}: {key}: unknown key; {_suggestion(key)}"
        case "missing" if last.isdigit():
            return f"{place}: {table}: has too few values; add one"
        case "too_long":
            return f"{place}: {key}: has too many values; {error['ctx']['max_length']} are expected"
        case "missing":
            return f"{place}: {key} is missing; add `{last}`" + (f" to [{table}]" if table else "")
        case "value_error":
            return f"{place}: {key}{': ' if key else ''}{error['ctx']['error']}"
        case "dataclass_type" | "dict_type":
            return f"{place}: {key}: should be a table, not {error['input']!r}; write [{key}]"
        case "string_pattern_mismatch":
            return f"{place}: {key}: should {_PATTERNS[error['ctx']['pattern']]}, not {error['input']!r}"
    message = "should" + error["msg"].partition("should")[2] if "should" in error["msg"] else error["msg"]
    return f"{place}: {key}: {message}, not {error['input']!r}"


def _suggestion(key: str) -> str:
    """The closest known key: by the whole dotted key, by the same last part in another table, by a near last part."""
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
