"""The records of a config: one for each table of the TOML file, and one for each kind of reward and judge."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Annotated, Any, ClassVar, Literal, get_args, get_type_hints

from annotated_types import Gt, Le
from pydantic import ConfigDict, Field

from fapo.config.ranges import CRITIQUE_TOKENS, Below1, Count, Natural, NonNegative, Positive, Rate, Seed
from fapo.config.sampling import Requests, RunSampling, Sampling, check_extra_body
from fapo.errors import ConfigError
from fapo.types import AnswerFormat, FlawKind, OnUnscored, StepRule

PATTERNS = {
    r"^\w[\w.+=-]*$": "be letters, digits and . _ - + = (it names a folder)",
    r"^https?://": "start with http:// or https://",
    r"^(?:math|choice|exact|[\w.]+:\w+)$": "be math, choice, exact or package.module:function",
}
"""Regular expression -> text of the message about a value that does not match it."""
_NAME, _URL, _CHECKER = PATTERNS

Name = Annotated[str, Field(pattern=_NAME)]
Text = Annotated[str, Field(min_length=1)]
Url = Annotated[str, Field(pattern=_URL)]
Checker = Annotated[str, Field(pattern=_CHECKER)]


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters (LoRA): the weights W of a layer stay as they are, and alpha/rank B A is added to them."""

    rank: Count = 16
    """Rank of the trained matrices: B has this number of columns, A of rows."""
    alpha: Count = 32
    """Numerator of the factor alpha/rank."""
    dropout: Below1 = 0.0
    """Rate of the inputs of A that are set to 0 at random; with method "rl" also while rollouts are generated."""
    target_modules: Annotated[tuple[Text, ...], Field(min_length=1)] = ("all-linear",)
    """Last parts of the names of the adapted layers, such as "q_proj"; "all-linear": all but the output layer."""
    save: Literal["merged", "adapter"] = "merged"
    """Content of the run's folder model/: weights with the adapter added to them, or the adapter alone."""
    quantization: Literal["4bit"] | None = None
    """Precision of the weights under the adapter: "4bit" (NF4 of bitsandbytes), for TRL; unset: model.dtype."""

    def __post_init__(self) -> None:
        if self.quantization and self.save == "merged":
            raise ConfigError('`save` "merged" would add the adapter to rounded weights; set save = "adapter"')


@dataclass(frozen=True)
class ModelConfig:
    """The model that is trained."""

    path: Text
    """Model to train: "miniature:policy", "miniature:genrm", a local folder or a Hugging Face id."""
    dtype: Literal["float32", "mixed", "bfloat16"] = "float32"
    """Precision of weights and computation; mixed: float32 weights, computation in bfloat16."""
    lora: LoraConfig | None = None
    """Low-rank adapters, which are trained in place of the weights; unset: all weights are trained."""


@dataclass(frozen=True)
class DataConfig:
    """The data: questions for a policy, labelled solutions for a GenRM."""

    train: Text
    """Training data: a file, a Hugging Face id or "miniature:SPLIT"."""
    validation: dict[str, Text] = field(default_factory=dict)
    """Validation data: name in the metrics -> source."""
    limit: Count | None = None
    """Number of training rows to use, from the first on; unset: all."""
    max_prompt_tokens: Count = 2048
    """Length limit of a prompt in tokens; longer training rows are left out, longer validation rows are an error."""
    prompt: Text | None = None
    """Prompt of the policy: "boxed", "gsm8k", "sums" or a text file with {{problem}}; unset: the problem as it is."""
    label_noise: Rate = 0.0
    """Rate of training labels that are made wrong at random, for a GenRM with method "rl"."""


@dataclass(frozen=True, kw_only=True)
class RolloutConfig(RunSampling):
    """Sampling of the model in training."""

    max_tokens: Count
    """Length limit of a response in tokens."""
    num_prompts: Count = 48
    """Number of prompts in one generation batch."""
    group_size: Annotated[int, Field(ge=2)] = 8
    """Number of rollouts of each prompt, at least 2; their rewards are compared with each other."""
    temperature: Positive = 1.0
    """Sampling temperature."""


@dataclass(frozen=True, kw_only=True)
class BaseReward:
    """Settings that all rewards have."""

    needs_steps: ClassVar[bool] = False
    """Whether the judge has to name the first error of all rollouts, also of wrong ones."""

    overlong_buffer: Natural = 0
    """Number of last tokens before the length limit over which the reward falls linearly by 1; 0 = off."""


@dataclass(frozen=True, kw_only=True)
class SolutionReward(BaseReward):
    """Settings of the rewards of solutions, which have an answer to check."""

    checker: Checker = "math"
    """Answer check: math, choice, exact, or "package.module:function", a function of yours that returns a bool."""


@dataclass(frozen=True, kw_only=True)
class OutcomeReward(SolutionReward):
    """Plain GRPO, the baseline: +1 for a correct final answer, else -1."""

    kind: Literal["outcome"] = "outcome"
    """Kind of the reward."""


@dataclass(frozen=True, kw_only=True)
class JudgedReward(SolutionReward):
    """Settings of rewards that depend on verdicts."""

    on_unscored: OnUnscored = "mask"
    """Treatment of rollouts without a verdict: leave them out (mask), reward correctness alone, or stop (raise)."""


@dataclass(frozen=True, kw_only=True)
class FapoReward(JudgedReward):
    """Reward of the paper: the outcome minus `penalty` for a flawed positive."""

    kind: Literal["fapo"] = "fapo"
    """Kind of the reward."""
    penalty: NonNegative = 1.0
    """lambda of the paper, subtracted from the reward of a flawed positive; 2 makes it a plain negative."""
    shift: NonNegative | None = None
    """rho_shift: fully correct per wrong rollout where flawed positives turn negative; sets penalty = 2/(shift+1)."""
    judge_recall: Rate = 1.0
    """Recall of the judge: rate of flawed rollouts that it flags; the reward is corrected for a recall below 1."""
    judge_false_positive_rate: Rate = 0.0
    """Rate of fully correct rollouts that the judge flags; the reward is corrected for a rate above 0."""

    def __post_init__(self) -> None:
        if self.shift is not None:
            object.__setattr__(self, "penalty", 2 / (self.shift + 1))
        if self.judge_recall <= self.judge_false_positive_rate:
            raise ConfigError(
                f"`judge_recall` {self.judge_recall:g} must be above `judge_false_positive_rate` "
                f"{self.judge_false_positive_rate:g}: otherwise the judge is no better than chance; use another judge"
            )


@dataclass(frozen=True, kw_only=True)
class StepRatioReward(JudgedReward):
    """Ablation of the paper: the outcome plus the ratio of steps before the first wrong one."""

    needs_steps = True

    kind: Literal["step_ratio"] = "step_ratio"
    """Kind of the reward."""


@dataclass(frozen=True, kw_only=True)
class GroupReward(JudgedReward):
    """Settings of rewards that compare the rollouts of a group in another way than plain GRPO does."""


@dataclass(frozen=True, kw_only=True)
class DecoupledReward(GroupReward):
    """Decoupled advantages: the outcome over the whole group, plus the verdict over its correct rollouts."""

    kind: Literal["decoupled"] = "decoupled"
    """Kind of the reward."""
    weight: Positive = 1.0
    """Weight of the verdict; it is normalised among the correct rollouts of a group, to a standard deviation of 1."""


@dataclass(frozen=True, kw_only=True)
class FilterReward(GroupReward):
    """Consistency filter: flawed positives are dropped, and a balanced part of the group learns by outcomes."""

    kind: Literal["filter"] = "filter"
    """Kind of the reward."""
    keep: Annotated[int, Field(ge=2)]
    """Largest number of rollouts of a group that train the policy, at most rollout.group_size."""


@dataclass(frozen=True, kw_only=True)
class FirstErrorReward(GroupReward):
    """First-error credit: right steps before the first error are rewarded, and only the wrong step is punished."""

    needs_steps = True

    kind: Literal["first_error"] = "first_error"
    """Kind of the reward."""
    penalty: NonNegative = 1.0
    """Penalty of the wrong step of a flawed positive; 2 makes it as bad as the wrong step of a wrong rollout."""
    share_credit: bool = True
    """Whether the steps before an error share the credit of one step, so that more steps do not earn more; if not,
    each of them has all of it."""


@dataclass(frozen=True, kw_only=True)
class GenRMStepReward(BaseReward):
    """Step-wise reward of a GenRM: +1 or -1 for the label, minus the distance to the first wrong step."""

    kind: Literal["genrm_step"] = "genrm_step"
    """Kind of the reward."""


@dataclass(frozen=True, kw_only=True)
class GenRMOutcomeReward(BaseReward):
    """Outcome reward of a GenRM: +1 or -1 for the label alone."""

    kind: Literal["genrm_outcome"] = "genrm_outcome"
    """Kind of the reward."""


PolicyReward = OutcomeReward | FapoReward | StepRatioReward | DecoupledReward | FilterReward | FirstErrorReward
"""Rewards of solutions, for task "policy"."""
GenRMReward = GenRMStepReward | GenRMOutcomeReward
"""Rewards of critiques, for task "genrm"."""
RewardConfig = PolicyReward | GenRMReward
"""The [reward] table; its `kind` decides which of these records it is."""


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """A second, better judge that reads a random sample of the judged rollouts; its verdicts enter no reward."""

    judge: Annotated[JudgeConfig | PersonJudge, Field(discriminator="kind")]
    """Second judge, with the settings of a [judge] table but its audit and canaries; or { kind = "person" }."""
    rate: Annotated[float, Gt(0), Le(1)] = 0.02
    """Rate of the correct rollouts with a verdict that the second judge reads, flagged and cleared alike."""
    min_j: Rate = 0.0
    """Lowest Youden's J of the judge by the second one; `on_low_j` holds if its interval is below it; 0 = never."""
    on_low_j: Literal["stop", "switch"] = "stop"
    """What happens below `min_j`: the run stops, or it continues with the second judge in place of the first one."""
    correct: bool = False
    """Whether rewards are corrected for the rates that the audit measures, from 32 verdicts on; reward.kind "fapo"."""

    def __post_init__(self) -> None:
        if self.second and (self.second.audit or self.second.canaries):
            raise ConfigError("`judge` of an audit is not watched itself; remove its `audit` and `canaries`")
        if isinstance(self.second, AdapterJudge):
            raise ConfigError('`judge` of an audit has weights of its own; use kind "served" or "local"')
        if self.second is None:
            for name in ("min_j", "correct"):
                if getattr(self, name):
                    raise ConfigError(f"`{name}` cannot be used with a person, for whom a run does not wait; remove it")
        if self.switches and not self.min_j:
            raise ConfigError('`on_low_j` "switch" needs the limit `min_j` above 0, such as 0.3')
        if self.switches and self.correct:
            raise ConfigError(
                '`correct` cannot be used with `on_low_j` "switch": the rates are those of the first judge; remove one'
            )

    @property
    def second(self) -> JudgeConfig | None:
        """Second judge; None for a person."""
        return None if isinstance(self.judge, PersonJudge) else self.judge

    @property
    def switches(self) -> bool:
        """Whether the second judge takes the place of the first one below `min_j`."""
        return self.on_low_j == "switch"


@dataclass(frozen=True, kw_only=True)
class BaseJudge:
    """Settings that all judges have."""

    all: bool = False
    """Whether to judge wrong rollouts too, not only correct ones."""
    canaries: Text | None = None
    """Labelled solutions that are mixed in among the rollouts: a file, a Hugging Face id or "miniature:critic-test"."""
    canary_rate: Rate = 0.05
    """Number of canaries for each judged rollout; precision, recall and F1 on them are metrics."""
    canary_min_f1: Rate = 0.0
    """F1 on the last 64 canaries (at least 32) below which the run stops; 0 = never."""
    audit: AuditConfig | None = None
    """Second judge that reads a random sample of the judged rollouts, to measure this judge; unset: none."""

    @property
    def parts(self) -> tuple[tuple[str, JudgeConfig], ...]:
        """The judges that this one is made of, each with the end of its key, such as ".cheap"; else itself and ""."""
        return (("", self),)  # type: ignore[return-value]  # each record but those without a kind is in the union

    @property
    def num_requests(self) -> int | None:
        """Number of requests under way at once; None for a judge in this process."""
        return None

    @property
    def loads_model(self) -> bool:
        """Whether a model of this judge is loaded into the process that judges."""
        return any(isinstance(part, ModelJudge) and not part.num_requests for _, part in self.parts)


@dataclass(frozen=True, kw_only=True)
class FallibleJudge(BaseJudge):
    """Settings of judges that may fail to answer."""

    max_failure_rate: Rate = 0.5
    """Failure rate of the last 100 judgements, or of a larger batch, above which the run stops; 1 = never."""


@dataclass(frozen=True, kw_only=True)
class ModelJudge(FallibleJudge):
    """Settings of judges that are models."""

    model: Text
    """Local model ("miniature:genrm", a folder or a Hugging Face id), or the name under which the servers know it."""
    steps: StepRule | None = None
    """Steps of a response: "paragraphs", or "lines" where it has no empty line; unset: the template's, paragraphs."""
    min_words: Natural = 0
    """Minimum number of words outside boxed answers; a shorter solution is flagged without a judgement; 0 = off."""
    cache: Text | None = None
    """SQLite file that keeps every answer of the model, so that it is not asked again; unset: one in the run folder."""


@dataclass(frozen=True, kw_only=True)
class CritiqueJudge(RunSampling, Sampling, ModelJudge):
    """Settings of judges that are language models, which write a critique."""

    template: Text = "locate"
    """Prompt: "locate", "locate_small", "yes_no", "compact" (the miniature's), or the path of a template file."""
    temperature: NonNegative = 0.0
    """Sampling temperature; 0 = greedy."""
    max_tokens: Count = CRITIQUE_TOKENS
    """Length limit of a critique in tokens."""
    votes: Count = 1
    """Number of critiques for each rollout; their most frequent answer is the verdict."""
    logprobs: bool = False
    """Whether a verdict has the probability of a flaw, by the log probabilities of its tokens, which are requested."""

    def __post_init__(self) -> None:
        if self.votes > 1 and self.temperature == 0:
            raise ConfigError("`votes` above 1 at `temperature` 0 are all the same; set temperature, such as 0.6")


@dataclass(frozen=True, kw_only=True)
class LocalJudge(CritiqueJudge):
    """A judge that is loaded into the process of the trainer."""

    kind: Literal["local"] = "local"
    """Kind of the judge."""


@dataclass(frozen=True, kw_only=True)
class JudgeRequests(Requests):
    """Settings of a judge that may be behind servers."""

    urls: tuple[Url, ...]
    """Base addresses of the servers; none: the model is loaded into this process."""
    concurrency: Count = 64
    """Number of requests under way at once."""
    timeout: Positive = 120.0
    """Time limit of one try of a request, in seconds."""
    revision: Text | None = None
    """Any text that changes with the weights behind the name, such as a commit; the cache keeps revisions apart."""
    overlap: bool = True
    """Whether to judge rollouts while others are generated; TRL only. false where judging slows generation down."""

    @property
    def num_requests(self) -> int | None:
        """Number of requests under way at once; None for a model in this process."""
        return self.concurrency if self.urls else None


def _check_urls(urls: tuple[str, ...]) -> None:
    """Raise ConfigError if an address holds a secret."""
    if any("@" in url or "?" in url for url in urls):
        raise ConfigError(
            "`urls` must not hold a name, password or key: they are saved in the run folder; set FAPO_API_KEY"
        )


@dataclass(frozen=True, kw_only=True)
class ServedJudge(JudgeRequests, CritiqueJudge):
    """A judge behind OpenAI-compatible servers."""

    kind: Literal["served"] = "served"
    """Kind of the judge."""
    urls: Annotated[tuple[Url, ...], Field(min_length=1)]
    """Base addresses of the servers, such as "http://localhost:8000/v1"; requests are spread over them."""
    format: AnswerFormat = "boxed"
    """Form of the verdict: "boxed", or "json", which the servers must be able to enforce (`response_format`)."""
    extra_body: dict[str, Any] = field(default_factory=dict)
    """Further fields of each request, such as reasoning_effort; max_completion_tokens replaces max_tokens."""
    prices: tuple[NonNegative, NonNegative, NonNegative] | None = None
    """Prices of a million prompt, cached and completion tokens, in any currency; the cost becomes a metric."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_urls(self.urls)
        if secret := next(_secrets(self.extra_body), None):
            raise ConfigError(f"`extra_body.{secret}` would be written into files; set FAPO_API_KEY")
        check_extra_body(self.extra_body)


@dataclass(frozen=True, kw_only=True)
class PRMJudge(JudgeRequests, ModelJudge):
    """A process reward model: it gives each step a score, and flags the first step below a threshold.

    The model classifies tokens: it reads the last token of each step, and one of its two labels means "correct".
    """

    kind: Literal["prm"] = "prm"
    """Kind of the judge."""
    urls: tuple[Url, ...] = ()
    """Base addresses of vLLM servers of the model; unset: transformers loads the model into this process."""
    tokenizer: Text | None = None
    """Tokenizer of a served model, a folder or a Hugging Face id; unset: the same as `model`."""
    threshold: Rate = 0.5
    """Score below which a step is wrong, among 0 to 1."""
    separator: Text = "<extra_0>"
    """Token that ends each step; "<extra_0>" for Qwen2.5-Math-PRM, and "\\n" by default in TRL's PRMTrainer."""
    prompt: Literal["chat", "plain"] = "chat"
    """Text before the steps: the problem in the chat template of the model, or the problem as it stands (as in TRL)."""

    def __post_init__(self) -> None:
        _check_urls(self.urls)
        changed = [name for name, default in _OF_SERVERS.items() if getattr(self, name) != default]
        if changed and not self.urls:
            raise ConfigError(f"`{changed[0]}` is for a served model; remove it, or add `urls`")


_OF_SERVERS = {f.name: f.default for f in fields(JudgeRequests) if f.name != "urls"} | {"tokenizer": None}
"""Settings of a process reward model that only a served one has, with their defaults."""


BASE, POLICY = "base", "policy"
"""Values of `model` of an adapter judge that name no adapter: the weights without one, and the policy in training."""


@dataclass(frozen=True, kw_only=True)
class AdapterJudge(CritiqueJudge):
    """A judge on the frozen weights of the policy in training, with an adapter of its own; TRL with [model.lora]."""

    kind: Literal["adapter"] = "adapter"
    """Kind of the judge."""
    model: Text
    """Adapter of `model.path`: a folder or a Hub id; "base": no adapter; "policy": the policy itself at each step."""

    @property
    def adapter(self) -> str | None:
        """Adapter of its own; None if it has none."""
        return None if self.model in (BASE, POLICY) else self.model


@dataclass(frozen=True, kw_only=True)
class OracleJudge(BaseJudge):
    """The exact checker of the miniature, for studies of judges."""

    kind: Literal["oracle"] = "oracle"
    """Kind of the judge."""
    false_negative_rate: Rate = 0.0
    """Rate of flawed rollouts that the oracle misses at random."""
    false_positive_rate: Rate = 0.0
    """Rate of fully correct rollouts that the oracle flags at a random step."""
    location_error_rate: Rate = 0.0
    """Rate of flagged flawed rollouts for which the oracle names another step than the first wrong one, at random."""
    blind_to: tuple[FlawKind, ...] = ()
    """Kinds of flaws that the oracle never flags: slip, skip, guess, cancellation or format."""


@dataclass(frozen=True, kw_only=True)
class PersonJudge:
    """A person, as the second judge of an audit: the rollouts are drawn, and labelled on the page of `fapo report`."""

    kind: Literal["person"] = "person"
    """Kind of the judge."""


CascadePart = LocalJudge | ServedJudge | PRMJudge | OracleJudge
"""The judges that a cascade may be made of."""


@dataclass(frozen=True, kw_only=True)
class CascadeJudge(FallibleJudge):
    """Two judges: the strong one is asked only where the cheap one is not sure.

    The score of a flaw is the rate of the cheap judge's votes that flag, with `logprobs` the probability of a flaw, or
    1 minus the lowest step score of a process reward model. The cheap verdict stands if it clears a score below the
    first threshold, or flags one above the second.
    """

    kind: Literal["cascade"] = "cascade"
    """Kind of the judge."""
    cheap: Annotated[CascadePart, Field(discriminator="kind")]
    """Judge that reads every solution, with the settings of a [judge] table."""
    strong: Annotated[CascadePart, Field(discriminator="kind")]
    """Judge that is asked where the cheap one is not sure, or has no verdict; with the settings of a [judge] table."""
    thresholds: tuple[Rate, Rate]
    """Scores of a flaw between which the strong judge is asked, both included; `fapo cascade` chooses them."""

    def __post_init__(self) -> None:
        if self.thresholds[0] > self.thresholds[1]:
            raise ConfigError(f"`thresholds` {list(self.thresholds)} must rise; put the lower one first")
        for end, part in self.parts:
            own = [f for f in fields(FallibleJudge) if getattr(part, f.name, f.default) != f.default]
            if own:
                raise ConfigError(f"`{end[1:]}.{own[0].name}` is a setting of the whole cascade; move it to [judge]")
            if isinstance(part, ServedJudge) and part.prices:
                raise ConfigError(
                    f"`{end[1:]}.prices` cannot be used: the tokens of both judges are added up; remove it"
                )

    @property
    def parts(self) -> tuple[tuple[str, JudgeConfig], ...]:
        """Both judges, each with the end of its key."""
        return (".cheap", self.cheap), (".strong", self.strong)

    @property
    def num_requests(self) -> int | None:
        """Number of solutions that are read at once; None if one of the judges is in this process."""
        nums = [part.num_requests for _, part in self.parts]
        return None if None in nums else max(num or 0 for num in nums)

    @property
    def by_probability(self) -> bool:
        """Whether the score of a flaw is the probability of a flaw that the cheap judge gives."""
        return isinstance(self.cheap, CritiqueJudge) and self.cheap.logprobs

    @property
    def cache(self) -> str | None:
        """Response cache of one of the judges; None if they have none."""
        return next(filter(None, (getattr(part, "cache", None) for _, part in self.parts)), None)

    def with_parts(self, changed: Callable[[JudgeConfig], BaseJudge]) -> CascadeJudge:
        """Return the same cascade of other judges.

        Args:
            changed: Function that returns the judge which takes the place of another.

        Returns:
            A copy.
        """
        return replace(self, cheap=changed(self.cheap), strong=changed(self.strong))  # type: ignore[arg-type]


JudgeConfig = LocalJudge | ServedJudge | AdapterJudge | PRMJudge | OracleJudge | CascadeJudge
"""The [judge] table; its `kind` decides which of these records it is."""


@dataclass(frozen=True)
class GenRMConfig:
    """The GenRM in training, for task "genrm"."""

    template: Text = "locate"
    """Prompt: "locate", "locate_small", "yes_no", "compact" (the miniature's), or the path of a template file."""


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer (AdamW with a constant learning rate after the warm-up) and the clipped loss."""

    steps: Count
    """Number of generation batches to train on."""
    learning_rate: Positive
    """Learning rate after the warm-up."""
    warmup_steps: Natural = 10
    """Number of steps of linear warm-up, in generation batches; the learning rate rises with each update in them."""
    weight_decay: NonNegative = 0.0
    """Weight decay of AdamW."""
    betas: tuple[Below1, Below1] = (0.9, 0.999)
    """beta1 and beta2 of AdamW."""
    clip_low: Below1 = 0.2
    """Lower clipping of the probability ratio, at 1 - clip_low."""
    clip_high: NonNegative = 0.28
    """Upper clipping of the probability ratio, at 1 + clip_high."""
    clip_dual: Annotated[float, Gt(1)] | None = None
    """Limit of the probability ratio where the advantage is negative (dual clip), above 1 + clip_high; unset: none."""
    max_grad_norm: Positive = 1.0
    """Norm to which gradients are clipped."""
    updates_per_batch: Count = 1
    """Number of optimizer steps for each generation batch, each with an equal part of its rollouts."""
    micro_batch_size: Count | None = None
    """Number of rollouts in one forward pass on one device; unset: all rollouts of an update."""

    def __post_init__(self) -> None:
        if self.clip_dual is not None and self.clip_dual <= 1 + self.clip_high:
            raise ConfigError(f"`clip_dual` {self.clip_dual:g} must be above 1 + `clip_high`, {1 + self.clip_high:g}")


@dataclass(frozen=True, kw_only=True)
class ValidationConfig(RunSampling):
    """Validation of the model in training, and checkpoints."""

    every: Count = 10
    """Number of steps between two validations; the first one is before training."""
    num_samples: Count = 1
    """Number of responses to each problem."""
    limit: Count | None = None
    """Number of problems of each set to use, from the first on; unset: all."""
    save_every: Count = 10
    """Number of steps between two checkpoints."""


@dataclass(frozen=True)
class Config:
    """The config of one run."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    name: Name
    """Name of the run and of its folder."""
    task: Literal["policy", "genrm"]
    """Model that is trained: policy solves problems, genrm judges solutions."""
    model: ModelConfig
    """Model that is trained."""
    data: DataConfig
    """Training and validation data."""
    rollout: RolloutConfig
    """Sampling of the model in training."""
    optim: OptimConfig
    """Optimizer and loss."""
    method: Literal["rl", "sft"] = "rl"
    """Training method: rl maximizes a reward; sft imitates the critiques in the data of a GenRM, without a reward."""
    reward: Annotated[RewardConfig, Field(discriminator="kind")] | None = None
    """Reward, required with method "rl"."""
    judge: Annotated[JudgeConfig, Field(discriminator="kind")] | None = None
    """Judge of the rollouts of a policy; unset: none."""
    genrm: GenRMConfig | None = None
    """Prompt of the GenRM in training; unset with task "genrm": the defaults."""
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    """Validation and checkpoints."""
    seed: Seed = 0
    """Seed of sampling, shuffling and initialisation."""
    output: Text = "runs"
    """Folder of run folders; this run writes into output/name."""
    trl: dict[str, Any] = field(default_factory=dict)
    """Further settings of trl.GRPOConfig, passed on as they are."""
    verl: dict[str, Any] = field(default_factory=dict)
    """Further settings of verl, passed on as overrides."""

    @property
    def judges_all(self) -> bool:
        """Whether the judge reads wrong rollouts, too."""
        return bool(self.judge and self.judge.all) or bool(self.reward and self.reward.needs_steps)

    @property
    def audit(self) -> AuditConfig | None:
        """Audit of the judge; None without one."""
        return self.judge.audit if self.judge else None

    @property
    def judges(self) -> tuple[tuple[str, JudgeConfig], ...]:
        """The judges of the run, or those that they are made of, with their keys: the judge, and that of its audit."""
        named = (("judge", self.judge), ("judge.audit.judge", self.audit.second if self.audit else None))
        return tuple((f"{key}{end}", part) for key, judge in named if judge for end, part in judge.parts)

    @property
    def rewarding_judges(self) -> tuple[tuple[str, JudgeConfig], ...]:
        """The judges with verdicts that enter rewards; those of an audit do if they may replace the first ones."""
        switches = bool(self.audit and self.audit.switches)
        return tuple((key, judge) for key, judge in self.judges if switches or not key.startswith("judge.audit."))

    def __post_init__(self) -> None:
        for table in ("trl", "verl"):
            if secret := next(_secrets(getattr(self, table)), None):
                raise ConfigError(f"{table}.{secret} would be written into the run folder; set it in the environment")
        self._check_task()
        rollout, optim = self.rollout, self.optim
        if self.reward and self.reward.overlong_buffer > rollout.max_tokens:
            raise ConfigError("reward.overlong_buffer is longer than rollout.max_tokens; make it shorter")
        if isinstance(self.reward, FilterReward) and self.reward.keep > rollout.group_size:
            raise ConfigError(
                f"reward.keep {self.reward.keep} is larger than rollout.group_size {rollout.group_size}, from which it "
                "keeps; make it smaller"
            )
        num_rollouts = rollout.num_prompts * rollout.group_size
        part, rest = divmod(num_rollouts, optim.updates_per_batch)
        if rest:
            raise ConfigError(
                f"optim.updates_per_batch does not divide the {num_rollouts} rollouts of a batch; choose a divisor"
            )
        if part % (optim.micro_batch_size or part):
            raise ConfigError(
                f"optim.micro_batch_size does not divide the {part} rollouts of one update; choose a divisor"
            )

    def _check_task(self) -> None:
        """Raise ConfigError for tables that do not fit task and method; a missing [genrm] gets its defaults."""
        reward, trains_genrm = self.reward, self.task == "genrm"
        if self.method == "sft" and not trains_genrm:
            raise ConfigError('method "sft" trains a GenRM; set task = "genrm", or method = "rl"')
        if self.method == "sft" and reward:
            raise ConfigError('method "sft" has no reward; remove the [reward] table')
        if self.method == "rl" and not reward:
            raise ConfigError("reward is missing; add a [reward] table with `kind`")
        if reward and isinstance(reward, GenRMReward) != trains_genrm:
            suited = ", ".join(_by_kind(GenRMReward if trains_genrm else PolicyReward))
            raise ConfigError(f'reward.kind "{reward.kind}" does not go with task "{self.task}"; use one of {suited}')
        if trains_genrm and self.judge:
            raise ConfigError('task "genrm" has no [judge]; name the prompt of the GenRM by `template` in [genrm]')
        if self.genrm and not trains_genrm:
            raise ConfigError('[genrm] is for task "genrm"; name the prompt of the judge by `template` in [judge]')
        if isinstance(reward, JudgedReward) and self.judge is None:
            raise ConfigError(f'reward.kind "{reward.kind}" needs a judge; add a [judge] table with `kind`')
        if self.audit and self.audit.correct and not isinstance(reward, FapoReward):
            raise ConfigError(
                'judge.audit.correct is for reward.kind "fapo", the only one that can be corrected for the errors of a '
                "judge; remove it, or use that kind"
            )
        if self.audit and self.audit.switches:
            self._check_switch()
        if isinstance(self.judge, AdapterJudge) and not self.model.lora:
            raise ConfigError(
                'judge.kind "adapter" needs [model.lora]: the judge reads weights that training must not change; add '
                'the table, or use kind "local"'
            )
        if isinstance(self.judge, AdapterJudge) and self.judge.model == POLICY and self.judge.cache:
            raise ConfigError(
                f'judge.cache: the answers of judge.model "{POLICY}" change with each step, so none is kept; remove it'
            )
        if self.data.prompt and trains_genrm:
            raise ConfigError('data.prompt is for task "policy"; name the prompt of the GenRM by `template` in [genrm]')
        if self.method == "sft":
            for name, unused in UNUSED_BY_SFT.items():
                table = getattr(self, name)
                for f in (f for f in fields(table) if f.name in unused and getattr(table, f.name) != f.default):
                    raise ConfigError(f'{name}.{f.name} does nothing with method "sft"; remove it')
        if self.data.label_noise and self.method == "sft":
            raise ConfigError('data.label_noise does nothing with method "sft"; use `fapo critiques --label-noise`')
        if self.data.label_noise and not trains_genrm:
            raise ConfigError('data.label_noise does nothing with task "policy"; remove it')
        if trains_genrm and self.genrm is None:
            object.__setattr__(self, "genrm", GenRMConfig())

    def _check_switch(self) -> None:
        """Raise ConfigError for a reward that does not go with `judge.audit.on_low_j` "switch"."""
        reward = self.reward
        if not isinstance(reward, JudgedReward):
            raise ConfigError(
                f'judge.audit.on_low_j "switch" does nothing with reward.kind "{reward.kind if reward else ""}", which '
                "needs no verdict; remove it"
            )
        if isinstance(reward, FapoReward) and (reward.judge_recall, reward.judge_false_positive_rate) != (1, 0):
            raise ConfigError(
                "reward.judge_recall and reward.judge_false_positive_rate are those of one judge, and with "
                'judge.audit.on_low_j "switch" there are two; remove them'
            )


UNUSED_BY_SFT = {"rollout": ("temperature", "top_p"), "optim": ("clip_low", "clip_high", "clip_dual")}
"""Table -> settings that do nothing with method "sft"."""
_SECRET = re.compile(r"(?:api_?key|hub_token|auth_?token|access_?token|secret|password)$", re.IGNORECASE)


def _secrets(table: Mapping[str, Any]) -> Iterator[str]:
    """Yield the dotted keys of a table that hold a secret, by their names, and are set."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from (f"{key}.{inner}" for inner in _secrets(value))
        elif isinstance(value, str) and value and _SECRET.search(key):
            yield key


def _by_kind(union: Any) -> dict[str, type]:
    """Return kind -> record, for the records of a union."""
    return {get_args(get_type_hints(record)["kind"])[0]: record for record in get_args(union)}


KINDS = {
    "reward": _by_kind(RewardConfig),
    "judge": _by_kind(JudgeConfig | PersonJudge),
    **dict.fromkeys(("cheap", "strong"), _by_kind(CascadePart)),
}
"""Table -> kind -> record of this kind."""


def field_names(record: type) -> set[str]:
    """Return the names of the fields of a dataclass."""
    return {f.name for f in fields(record)}


def known_keys() -> list[str]:
    """Return the dotted keys of all settings, also of tables, each once: "name", ..., "model", "model.path", ..."""
    return list(dict.fromkeys(_keys(Config, "")))


def _keys(table: type, prefix: str) -> Iterator[str]:
    """Yield the dotted keys of all settings; a key that several records of a union have is repeated."""
    hints = get_type_hints(table)
    for f in fields(table):
        yield prefix + f.name
        if (table, f.name) in ((AuditConfig, "judge"), (CascadeJudge, "cheap"), (CascadeJudge, "strong")):
            continue  # its keys are those of [judge]
        for inner in (hints[f.name], *get_args(hints[f.name])):
            if is_dataclass(inner) and isinstance(inner, type):
                yield from _keys(inner, f"{prefix}{f.name}.")
