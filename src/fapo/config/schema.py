"""The settings of a run: frozen records, read from TOML with `load`. A mistake is an error with line and remedy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args, get_type_hints

from pydantic import ConfigDict, Field

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
