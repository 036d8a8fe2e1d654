"""Build the judge that a config or a command line names.

A judge is wrapped in other judges. From the outside in:

    CircuitBreaker       stops the run when too many verdicts failed; `PolicyScorer` has it, so canaries do not count
    DeduplicatingJudge   judges equal rollouts of different calls once
    BatchingJudge        joins the calls that arrive while a model in this process is busy
    Canaries             judges solutions with known labels beside each call, without the response cache
    EagerJudge           starts before the batch of rollouts is complete
    SwitchingJudge       asks the second judge of an audit instead, once that has refuted the first
    Cascade              has two judges, and asks the second only where the first is not sure
    GenRM, PRM, oracle   judges; a GenRM or a PRM asks once about equal solutions of one call
    CachedModel          the model of these two, which answers from the response cache what it has answered before

`make_judge` builds the innermost judge and its canaries; `wrap_judge` and `make_eager` of `fapo.rewards` add the rest.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import fields, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from fapo.config.reader import judge_config, load_judge
from fapo.config.sampling import Requests, settings_of
from fapo.config.schema import (
    AdapterJudge,
    BaseJudge,
    CascadeJudge,
    CritiqueJudge,
    FallibleJudge,
    JudgeConfig,
    JudgeRequests,
    LocalJudge,
    ModelJudge,
    OracleJudge,
    PRMJudge,
    ServedJudge,
)
from fapo.data.load import load_labelled
from fapo.errors import ConfigError
from fapo.inference.client import ChatClient
from fapo.inference.models import LOCAL, ModelSpec, loading, model_folder, model_spec
from fapo.inference.response_cache import CachedModel, ResponseCache
from fapo.inference.step_scores import PoolingClient
from fapo.inference.usage import UsageMeter
from fapo.judge.asking import AskingJudge
from fapo.judge.canaries import Canaries
from fapo.judge.cascade import Cascade
from fapo.judge.genrm import GenRM
from fapo.judge.oracle import oracle
from fapo.judge.prm import PRM, StepTokenizer
from fapo.judge.switching import SwitchingJudge
from fapo.judge.template import Template, load_template, max_critique
from fapo.types import ChatModel, Judge, StepRule

if TYPE_CHECKING:
    from fapo.inference.token_classifier import TokenClassifier
    from fapo.inference.transformers_model import LocalModel

VOTING_TEMPERATURE = 0.6
"""Sampling temperature of a judge with several votes, where none is set."""
SomeJudge = TypeVar("SomeJudge")
AnyJudge = ModelJudge | OracleJudge | CascadeJudge
"""Settings of a judge of any kind."""
OPTIONS = ("--judge", "--model")
"""Options that name a judge on a command line."""
PRM_PREFIX = "prm:"
"""Prefix of the addresses of a process reward model on a command line."""
CASCADE_PREFIX = "cascade:"
"""Prefix of the file of a cascade on a command line."""
_NOT_IN_CACHE = {f.name for record in (FallibleJudge, JudgeRequests) for f in fields(record)} - {"revision"} | {
    "steps",  # solutions of one step are the same by both rules
    *("votes", "min_words", "prices", "threshold"),
}
"""Settings of a served judge on which the place of its answers in a cache does not depend."""


class JudgeModel(ChatModel, Protocol):
    """Chat model of a judge in this process."""

    @property
    def settings(self) -> dict[str, Any]:
        """All that a completion depends on, besides the conversations and the name of the model; for a cache."""
        ...


def make_judge(config: AnyJudge, *, seed: int = 0, model: JudgeModel | None = None) -> Judge:
    """Return the judge that a config names; its connections and its cache stay open until the process ends.

    Args:
        config: The [judge] table.
        seed: Seed of the choice of canaries.
        model: Model of the judge, if it is that of a trainer (kind "adapter"); None: the one that the config names.

    Returns:
        A GenRM, a PRM, an oracle or a cascade, in a `SwitchingJudge` if its audit may replace it, with canaries around
        it if `judge.canaries` is set.

    Raises:
        ConfigError: If the template or the model cannot be loaded, or the judges of a cascade read different steps or
            would share answers, see `check_caches`.
        DataError: If the cache or the canaries cannot be used.
    """
    rule = step_rule(config)
    judge, uncached = _with_uncached(config, model)
    if config.audit and config.audit.switches:
        judge = SwitchingJudge(judge)
    if not config.canaries:
        return judge
    known = load_labelled(config.canaries, steps=rule)
    return Canaries(judge, known, config.canary_rate, config.canary_min_f1, seed, uncached)


def _with_uncached(
    config: AnyJudge, model: JudgeModel | None = None, usage: UsageMeter | None = None
) -> tuple[Judge, Judge | None]:
    """Return a judge, and the same judge without a cache; None for an oracle, which has none.

    Args:
        config: Settings of the judge; its canaries are not used.
        model: Model of the judge, if it is that of a trainer.
        usage: Counter of its tokens; None: a new one.

    Returns:
        Both judges, which count their tokens together.
    """
    if isinstance(config, OracleJudge):
        rates = config.false_negative_rate, config.false_positive_rate
        return oracle(*rates, config.blind_to, config.location_error_rate), None
    if isinstance(config, CascadeJudge):
        check_caches((f"judge{end}", part) for end, part in config.parts)
        usage = UsageMeter()
        cheap, strong = (_with_uncached(part, usage=UsageMeter(usage)) for _, part in config.parts)
        cascade = Cascade(cheap[0], strong[0], config.thresholds, usage, config.by_probability)
        return cascade, replace(cascade, cheap=cheap[1] or cheap[0], strong=strong[1] or strong[0])
    form = _form(config)
    model = model or _open_model(config, form)
    asking = _asking(config, form, model, usage=usage)
    return asking, _asking(replace(config, cache=None), form, model, usage=asking.usage)


def step_rule(config: AnyJudge) -> StepRule:
    """Return the rule by which a judge splits responses into steps.

    Args:
        config: Settings of the judge.

    Returns:
        The rule; the judges of a cascade have the same.

    Raises:
        ConfigError: If the template of the judge is wrong, or the judges of a cascade have different rules.
    """
    if isinstance(config, CascadeJudge):
        cheap, strong = (step_rule(part) for _, part in config.parts)
        if cheap != strong:
            raise ConfigError(
                f"judge.cheap splits solutions into {cheap} and judge.strong into {strong}; set `steps` of one of them"
            )
        return cheap
    if isinstance(config, CritiqueJudge):
        return load_template(config.template, config.steps).steps
    return "lines" if isinstance(config, OracleJudge) else config.steps or "paragraphs"


def check_caches(judges: Iterable[tuple[str, BaseJudge]], remedy: str = "set `revision` of one of them") -> None:
    """Raise ConfigError if two judges at different servers would answer from the cache for each other.

    A cache knows a served model by its name and revision, and an answer by the prompt and the settings besides.

    Args:
        judges: The judges, or those that they are made of, each with its key; without a cache they share nothing.
        remedy: What to do, for the message.
    """
    served = [(key, j) for key, j in judges if isinstance(j, ServedJudge | PRMJudge) and j.urls and j.cache]
    for (first, one), (second, other) in combinations(served, 2):
        if one.cache == other.cache and not {*one.urls} & {*other.urls} and _stored_as(one) == _stored_as(other):
            raise ConfigError(
                f"{first} and {second} are at different urls and have the same model name {one.model!r}, prompt and "
                f"sampling, so that each would be given the cached answers of the other; {remedy}"
            )


def _stored_as(judge: ServedJudge | PRMJudge) -> dict[str, Any]:
    """Return the settings of a served judge on which the place of its answers in a cache depends."""
    return {f.name: getattr(judge, f.name) for f in fields(judge) if f.name not in _NOT_IN_CACHE} | {"kind": judge.kind}


@contextlib.asynccontextmanager
async def open_judge(
    config: ModelJudge | CascadeJudge, *, use_cache: bool = True, usage: UsageMeter | None = None
) -> AsyncIterator[AskingJudge | Cascade]:
    """Open the judge of a command; its connections and its cache are closed at the end of the block.

    Args:
        config: Settings of the judge; its canaries are not used.
        use_cache: Whether to return cached responses. If not, the model is asked again and its responses are stored.
        usage: Counter of its tokens; None: a new one.

    Yields:
        AskingJudge | Cascade: The judge, a GenRM, a PRM or a cascade of them.

    Raises:
        ConfigError: If the template or the model cannot be loaded, or the judges of a cascade read different steps or
            would share answers, see `check_caches`.
        DataError: If the cache cannot be used.
    """
    if isinstance(config, CascadeJudge):
        step_rule(config)
        check_caches((f"judge{end}", part) for end, part in config.parts)
        usage = usage or UsageMeter()
        cheap, strong = (
            open_judge(_answering(part, f"judge{end}"), use_cache=use_cache, usage=UsageMeter(usage))
            for end, part in config.parts
        )
        async with cheap as first, strong as second:
            yield Cascade(first, second, config.thresholds, usage, config.by_probability)
        return
    form = _form(config)
    async with contextlib.aclosing(_open_model(config, form)) as model:
        judge = _asking(config, form, model, use_cache, usage)
        try:
            yield judge
        finally:
            if judge.complete is not model:
                judge.complete.cache.close()  # type: ignore[attr-defined]  # a CachedModel


def command_line_judge(
    addresses: Sequence[str],
    model: str,
    *,
    votes: int = 1,
    temperature: float | None = None,
    options: tuple[str, str] = OPTIONS,
    **settings: Any,
) -> CritiqueJudge:
    """Return the settings of the language model that a command line names as a judge.

    Args:
        addresses: Addresses of servers that have `model`, or one model to load in this process, such as local:PATH.
        model: Name of the model at the servers.
        votes: Number of critiques of each solution.
        temperature: Sampling temperature; None means 0 for one vote and VOTING_TEMPERATURE for several.
        options: Names of the options for addresses and model, for error messages.
        **settings: Other fields of a served judge; those that a local judge does not have are ignored for one.

    Returns:
        A served or a local judge.

    Raises:
        ConfigError: If an address or a setting cannot be used; the message names the option or the key.
    """
    found = model_spec(addresses, model, *options)
    sampled = VOTING_TEMPERATURE if votes > 1 else 0.0
    chosen = {"votes": votes, "temperature": sampled if temperature is None else temperature}
    table = {"kind": "local", "model": found.name} | chosen | settings
    if found.urls:
        table |= {"kind": "served", "urls": found.urls}
    else:  # a command has the same options for both kinds
        if settings.get("format", "boxed") != "boxed":
            raise ConfigError(f"{options[0]}: {found.name} is loaded here, and only a server can enforce format json")
        if settings.get("extra_body"):
            raise ConfigError(f"{options[0]}: {found.name} is loaded here, and extra_body is for requests to a server")
        known = {f.name for f in fields(LocalJudge)}
        table = {key: value for key, value in table.items() if key in known}
    judge = judge_config(table, "command line")
    assert isinstance(judge, CritiqueJudge)
    return judge


def command_line_prm(addresses: Sequence[str], model: str, **settings: Any) -> PRMJudge:
    """Return the settings of the process reward model that a command line names.

    Args:
        addresses: Addresses of servers, each with the prefix "prm:"; or one folder or Hub id with this prefix.
        model: Name of the model at the servers.
        **settings: Other settings of the judge; None for those that are not given.

    Returns:
        The judge.

    Raises:
        ConfigError: If an address or a setting cannot be used; the message names the option or the key.
    """
    if not all(address.startswith(PRM_PREFIX) for address in addresses):
        raise ConfigError(f"--judge: some of {', '.join(addresses)} have the prefix {PRM_PREFIX} and others not")
    named = [address.removeprefix(PRM_PREFIX).removeprefix(LOCAL) for address in addresses]
    served = [name.startswith(("http://", "https://")) for name in named]
    places = [name if is_url else LOCAL + name for name, is_url in zip(named, served, strict=True)]
    found = model_spec(places, model, *OPTIONS)
    table = {"kind": "prm", "model": found.name, "urls": found.urls} | settings
    if not found.urls:
        table = {key: value for key, value in table.items() if key not in ("concurrency", "timeout")}
    judge = judge_config({key: value for key, value in table.items() if value is not None}, "command line")
    assert isinstance(judge, PRMJudge)
    return judge


def command_line_cascade(file: str, cache: Path | None) -> CascadeJudge:
    """Return the cascade in the [judge] table of a TOML file that a command line names.

    Args:
        file: TOML file, which may have other tables too; its paths are relative to its folder.
        cache: File of the response cache of those judges that name none; None: they have none.

    Returns:
        The cascade.

    Raises:
        ConfigError: If the file cannot be read, or its judge is no cascade of models.
    """
    judge = load_judge(file)
    if not isinstance(judge, CascadeJudge):
        raise ConfigError(f'{file}: judge.kind is "{judge.kind}"; --judge {CASCADE_PREFIX}FILE is for kind "cascade"')
    for name in ("all", "canaries", "audit"):
        if getattr(judge, name):
            raise ConfigError(f"{file}: judge.{name} is for a training; remove it for this command")

    def with_cache(part: JudgeConfig) -> ModelJudge:
        answering = _answering(part, f"{file}: judge")
        return replace(answering, cache=answering.cache or (str(cache) if cache else None))

    return judge.with_parts(with_cache)


def _answering(part: JudgeConfig, place: str) -> ModelJudge:
    """Return a judge that is a model; raise ConfigError for an oracle, which knows only rollouts of the miniature."""
    if not isinstance(part, ModelJudge):
        raise ConfigError(f'{place}: kind "{part.kind}" is for fapo train; name a model')
    return part


def judge_of_process(judge: SomeJudge, num_processes: int) -> SomeJudge:
    """Return the judge of one of several processes, which has a part of its concurrency."""
    if isinstance(judge, CascadeJudge):
        return judge.with_parts(lambda part: judge_of_process(part, num_processes))  # type: ignore[return-value]
    if not isinstance(judge, JudgeRequests) or not judge.num_requests:
        return judge
    return replace(judge, concurrency=max(1, judge.concurrency // num_processes))


def _form(config: ModelJudge) -> Template | StepTokenizer:
    """Return the form in which a judge asks its model."""
    if isinstance(config, PRMJudge):
        return step_tokenizer(config)
    assert isinstance(config, CritiqueJudge)
    template = load_template(config.template, config.steps)
    if not isinstance(config, ServedJudge):
        return template
    max_tokens = config.extra_body.get("max_completion_tokens", config.max_tokens)
    return replace(template, format=config.format, max_critique=max_critique(max_tokens))


def step_tokenizer(config: PRMJudge) -> StepTokenizer:
    """Return the form of the prompt of a process reward model; raise ConfigError if its tokenizer cannot be used."""
    name = config.tokenizer or config.model
    key = "judge.tokenizer" if config.tokenizer else "judge.model"
    if config.urls and not config.tokenizer:
        key = "judge.tokenizer is not set, and judge.model"
    with loading(key, name):
        from fapo.inference.pretrained import load_tokenizer

        tokenizer = load_tokenizer(model_folder(name))
    return StepTokenizer(tokenizer, name, config.separator, config.prompt)


def _open_model(config: ModelJudge, form: Template | StepTokenizer) -> ChatClient | LocalModel | TokenClassifier:
    """Return the model of a judge, served or in this process. Raise ConfigError if only a trainer has it."""
    if isinstance(config, AdapterJudge):
        raise ConfigError(
            'judge.kind "adapter" is for fapo train with --engine trl: the judge shares the base weights of the policy '
            'in training; use kind "local" or "served"'
        )
    if isinstance(config, PRMJudge):
        if not config.urls:
            with loading("judge.model", config.model):
                from fapo.inference.token_classifier import TokenClassifier

                return TokenClassifier.load(model_folder(config.model))
        return PoolingClient(config.urls, config.model, **settings_of(Requests, config))
    assert isinstance(config, CritiqueJudge) and isinstance(form, Template)
    after = form.before_verdict if config.logprobs else ""
    # with a seed, a run that is resumed samples the same critiques
    if isinstance(config, ServedJudge):
        return _model_spec(config).open(
            "judge.model", config, config, seed=0, extra_body=config.extra_body, logprobs_after=after
        )
    return _model_spec(config).open("judge.model", config, seed=0, logprobs_after=after)


def _model_spec(config: ModelJudge) -> ModelSpec:
    """Return name and addresses of the model of a judge."""
    if isinstance(config, JudgeRequests):
        return ModelSpec(config.model, config.urls, config.revision)
    return ModelSpec(config.model)


def _asking(
    config: ModelJudge,
    form: Template | StepTokenizer,
    model: ChatClient | JudgeModel,
    use_cache: bool = True,
    usage: UsageMeter | None = None,
) -> AskingJudge:
    """Return a judge that asks a model, through the response cache if the config has one."""
    asked: ChatModel = model
    if config.cache:
        asked = CachedModel(
            model,
            ResponseCache(config.cache),
            model=_model_spec(config).record_name,
            settings=model.settings,
            template=form.name if isinstance(form, Template) else "prm",
            concurrency=model.concurrency if isinstance(model, ChatClient) else None,
            use_cache=use_cache,
        )
    if isinstance(form, Template):
        assert isinstance(config, CritiqueJudge)
        return GenRM(form, asked, config.votes, config.min_words, usage or UsageMeter())
    assert isinstance(config, PRMJudge)
    return PRM(form, asked, config.threshold, step_rule(config), config.min_words, usage or UsageMeter())
