"""The judge that a config or a command line names: a model behind servers or in this process, with or without a
cache.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from fapo.config.reader import judge_config
from fapo.config.schema import JudgeConfig, LocalJudge, ModelJudge, OracleJudge, ServedJudge
from fapo.inference.client import ChatClient
from fapo.inference.models import ModelSpec, model_spec
from fapo.inference.response_cache import CachedModel, ResponseCache
from fapo.judge.genrm import GenRM
from fapo.judge.oracle import oracle
from fapo.judge.template import Template, load_template
from fapo.types import Judge

if TYPE_CHECKING:
    from fapo.inference.transformers_model import LocalModel


def make_judge(config: JudgeConfig) -> Judge:
    """The judge a config names, for as long as the process lives."""
    if isinstance(config, OracleJudge):
        return oracle(config.false_negative_rate, config.false_positive_rate)
    template = load_template(config.template)
    return _genrm(config, template, connect(config), False)


@contextlib.asynccontextmanager
async def opened(config: ModelJudge, *, fresh: bool = False) -> AsyncIterator[GenRM]:
    """The judge of a command; connections and cache are closed in the end.

    With `fresh` it asks anew what is in its cache, too.
    """
    template = load_template(config.template)
    async with contextlib.aclosing(connect(config)) as model:
        judge = _genrm(config, template, model, fresh)
        try:
            yield judge
        finally:
            if judge.complete is not model:
                judge.complete.cache.close()  # type: ignore[attr-defined]  # a CachedModel


def named(
    judges: Sequence[str],
    model: str,
    *,
    votes: int = 1,
    temperature: float | None = None,
    options: tuple[str, str] = ("--judge", "--model"),
    **settings: Any,
) -> ModelJudge:
    """The judge that a command line names: addresses of servers that know `model`, or one model to load here.

    Without a temperature it is greedy; several votes are sampled at 0.6. `options` are the names for messages.
    """
    found = model_spec(judges, model, *options)
    sampled = 0.6 if votes > 1 else 0.0
    chosen = {"votes": votes, "temperature": sampled if temperature is None else temperature}
    table = {"kind": "local", "model": found.name} | chosen | settings
    if found.urls:
        table |= {"kind": "served", "urls": found.urls}
    else:  # the options of a command are for servers, too
        known = {f.name for f in fields(LocalJudge)}
        table = {key: value for key, value in table.items() if key in known}
    judge = judge_config(table, "command line")
    assert isinstance(judge, ModelJudge)
    return judge


def connect(config: ModelJudge) -> ChatClient | LocalModel:
    """Its model, served or in this process."""
    sampling: dict[str, Any] = {name: getattr(config, name) for name in ("temperature", "top_p", "max_tokens")}
    client: dict[str, Any] = {}
    if isinstance(config, ServedJudge):
        client = {"concurrency": config.concurrency, "timeout": config.timeout, "deadline": config.deadline}
    # seeded: a run that is resumed samples the same critiques
    return _chat_model(config).open("judge.model", seed=0, **sampling, **client)


def _chat_model(config: ModelJudge) -> ModelSpec:
    return ModelSpec(config.model, config.urls if isinstance(config, ServedJudge) else ())


def _genrm(config: ModelJudge, template: Template, model: ChatClient | LocalModel, fresh: bool) -> GenRM:
    if not config.cache:
        return GenRM(template, model, config.votes, config.min_words)
    settings = {name: getattr(config, name) for name in ("temperature", "top_p", "max_tokens")}
    name = _chat_model(config).record_name
    kept = CachedModel(
        model,
        ResponseCache(config.cache),
        model=name,
        settings=settings,
        template=template.name,
        batch_size=model.batch_size,
        concurrency=model.concurrency,
        use_cache=not fresh,
    )
    return GenRM(template, kept, config.votes, config.min_words)
