"""Build the judge that a config or a command line names.

A judge is wrapped in other judges. From the outside in:

    CircuitBreaker       stops the run when too many verdicts failed; `PolicyScorer` has it, so canaries do not count
    DeduplicatingJudge   judges equal rollouts of different calls once
    BatchingJudge        joins the calls that arrive while a model in this process is busy
    Canaries             judges solutions with known labels beside each call, without the response cache
    EagerJudge           starts before the batch of rollouts is complete
    GenRM or oracle      judges; a GenRM asks once about equal solutions of one call
    CachedModel          the model of a GenRM, which answers from the response cache what it has answered before

`make_judge` builds the innermost judge and its canaries; `fapo.rewards.from_config.wrap_judge` adds the other wrappers.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, Protocol

from fapo.config.reader import judge_config
from fapo.config.schema import AdapterJudge, JudgeConfig, LocalJudge, ModelJudge, OracleJudge, ServedJudge
from fapo.data.load import load_labelled
from fapo.errors import ConfigError
from fapo.inference.client import ChatClient
from fapo.inference.models import ModelSpec, model_spec
from fapo.inference.response_cache import CachedModel, ResponseCache
from fapo.judge.canaries import Canaries
from fapo.judge.genrm import GenRM
from fapo.judge.oracle import oracle
from fapo.judge.template import Template, load_template
from fapo.types import ChatModel, Judge, StepRule

if TYPE_CHECKING:
    from fapo.inference.transformers_model import LocalModel

VOTING_TEMPERATURE = 0.6
"""Sampling temperature of a judge with several votes, where none is set."""


class JudgeModel(ChatModel, Protocol):
    """Chat model of a judge in this process."""

    @property
    def settings(self) -> dict[str, Any]:
        """All that a completion depends on, besides the conversations and the name of the model; for a cache."""
        ...


def make_judge(config: JudgeConfig, *, seed: int = 0, model: JudgeModel | None = None) -> Judge:
    """Return the judge that a config names; its connections and its cache stay open until the process ends.

    Args:
        config: The [judge] table.
        seed: Seed of the choice of canaries.
        model: Model of the judge, if it is that of a trainer (kind "adapter"); None: the one that the config names.

    Returns:
        A GenRM or an oracle, with canaries around it if `judge.canaries` is set.

    Raises:
        ConfigError: If the template or the model cannot be loaded.
        DataError: If the cache or the canaries cannot be used.
    """
    judge: Judge
    uncached: Judge | None = None
    if isinstance(config, OracleJudge):
        judge = oracle(config.false_negative_rate, config.false_positive_rate, config.blind_to)
    else:
        template, model = _template(config), model or _open_model(config)
        judge = genrm = _genrm(config, template, model)
        uncached = replace(_genrm(replace(config, cache=None), template, model), usage=genrm.usage)
    if not config.canaries:
        return judge
    known = load_labelled(config.canaries, steps=step_rule(config))
    return Canaries(judge, known, config.canary_rate, config.canary_min_f1, seed, uncached)


def step_rule(config: ModelJudge | OracleJudge) -> StepRule:
    """Return the rule by which a judge splits responses into steps; raise ConfigError if its template is wrong."""
    return "lines" if isinstance(config, OracleJudge) else load_template(config.template, config.steps).steps


@contextlib.asynccontextmanager
async def open_judge(config: ModelJudge, *, use_cache: bool = True) -> AsyncIterator[GenRM]:
    """Open the judge of a command; its connections and its cache are closed at the end of the block.

    Args:
        config: Settings of the judge; its canaries are not used.
        use_cache: Whether to return cached responses. If not, the model is asked again and its responses are stored.

    Yields:
        GenRM: The judge.

    Raises:
        ConfigError: If the template or the model cannot be loaded.
        DataError: If the cache cannot be used.
    """
    template = _template(config)
    async with contextlib.aclosing(_open_model(config)) as model:
        judge = _genrm(config, template, model, use_cache)
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
    options: tuple[str, str] = ("--judge", "--model"),
    **settings: Any,
) -> ModelJudge:
    """Return the settings of the judge that a command line names.

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
    assert isinstance(judge, ModelJudge)
    return judge


def _template(config: ModelJudge) -> Template:
    """Return the template of a judge, with the settings that change it."""
    template = load_template(config.template, config.steps)
    return replace(template, format=config.format) if isinstance(config, ServedJudge) else template


def _open_model(config: ModelJudge) -> ChatClient | LocalModel:
    """Return the model of a judge, served or in this process. Raise ConfigError if only a trainer has it."""
    if isinstance(config, AdapterJudge):
        raise ConfigError(
            'judge.kind "adapter" is for fapo train with --engine trl, whose policy has the weights; use kind "local" '
            "or a served judge"
        )
    sampling: dict[str, Any] = {name: getattr(config, name) for name in ("temperature", "top_p", "max_tokens")}
    client: dict[str, Any] = {}
    if isinstance(config, ServedJudge):
        client = {name: getattr(config, name) for name in ("concurrency", "timeout", "deadline", "extra_body")}
    # with a seed, a run that is resumed samples the same critiques
    return _model_spec(config).open("judge.model", seed=0, **sampling, **client)


def _model_spec(config: ModelJudge) -> ModelSpec:
    """Return name and addresses of the model of a judge."""
    return (
        ModelSpec(config.model, config.urls, config.revision)
        if isinstance(config, ServedJudge)
        else ModelSpec(config.model)
    )


def _genrm(config: ModelJudge, template: Template, model: ChatClient | JudgeModel, use_cache: bool = True) -> GenRM:
    """Return a GenRM that asks a model, through the response cache if the config has one."""
    if not config.cache:
        return GenRM(template, model, config.votes, config.min_words)
    kept = CachedModel(
        model,
        ResponseCache(config.cache),
        model=_model_spec(config).record_name,
        settings=model.settings,
        template=template.name,
        concurrency=model.concurrency if isinstance(model, ChatClient) else None,
        use_cache=use_cache,
    )
    return GenRM(template, kept, config.votes, config.min_words)
