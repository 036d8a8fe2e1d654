"""The judge that a config names: a model behind servers or in this process, with or without a journal."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fapo import pypi_models
from fapo.client import ChatClient
from fapo.config import JudgeConfig, judge_config
from fapo.journal import Journal, Journaled
from fapo.judge import GenRM, Template, load_template
from fapo.miniature import sources as miniature
from fapo.models import loading, model_folder
from fapo.types import Complete, Judge

if TYPE_CHECKING:
    from fapo.local import LocalModel


def make_judge(config: JudgeConfig) -> Judge:
    """The judge a config names."""
    if config.kind == "oracle":
        return miniature.oracle(config.misses, config.alarms)
    template = load_template(config.template)
    return make_genrm(config, template, connect(config))


def named(judges: Sequence[str], model: str, **settings: Any) -> JudgeConfig:
    """The judge that a command line names: addresses of servers that know `model`, or one model to load here."""
    served = [name for name in judges if name.startswith(("http://", "https://"))]
    if served and len(served) == len(judges):
        if not model:
            raise ValueError("--judge needs --model: the name under which the server knows the judge")
        return judge_config({"kind": "served", "urls": served, "model": model} | settings, "command line")
    if len(judges) != 1:
        raise ValueError(
            "needs a judge: --judge URL once for each server, such as http://127.0.0.1:8000/v1; "
            f"or one model to load here: --judge local:PATH; given were {', '.join(judges) or 'none'}"
        )
    if not judges[0].startswith(("local:", miniature.PREFIX, pypi_models.PREFIX)):
        raise ValueError(
            f"--judge {judges[0]}: neither an address, such as http://127.0.0.1:8000/v1, "
            "nor a model to load here: local:PATH, miniature:genrm or pypi:PACKAGE"
        )
    return judge_config({"kind": "local", "model": judges[0].removeprefix("local:")} | settings, "command line")


def connect(config: JudgeConfig) -> ChatClient | LocalModel:
    """Its model, served or in this process."""
    sampling: dict[str, Any] = {
        "temperature": config.temperature,
        "top_p": config.top_p,
        "max_tokens": config.max_tokens,
    }
    if config.kind == "local":
        from fapo.local import LocalModel

        with loading("judge.model", config.model):  # seeded: a run that is resumed samples the same critiques
            return LocalModel.load(model_folder(config.model), seed=0, **sampling)
    return ChatClient(
        config.urls,
        config.model,
        concurrency=config.concurrency,
        timeout=config.timeout,
        deadline=config.deadline,
        early_stop=config.early_stop,
        **sampling,
    )


def make_genrm(
    config: JudgeConfig, template: Template, model: ChatClient | LocalModel, *, fresh: bool = False
) -> GenRM:
    """The judge, asking a model of `connect`. With `fresh` it asks anew what is in its journal, too."""
    complete: Complete = model
    if config.journal:
        served = isinstance(model, ChatClient)
        complete = Journaled(
            model,
            Journal(config.journal),
            model=config.model if served else fingerprint(config.model),
            settings=settings(config),
            template=template.name,
            batch=1 if isinstance(model, ChatClient) else model.batch_size,
            concurrency=config.concurrency if served else 1,
            fresh=fresh,
        )
    return GenRM(template, complete, config.votes, config.min_words)


def settings(config: JudgeConfig) -> dict[str, Any]:
    """What an answer depends on besides model and prompt; early_stop only where it is on."""
    sampling = {"temperature": config.temperature, "top_p": config.top_p, "max_tokens": config.max_tokens}
    return sampling | ({"early_stop": True} if config.early_stop else {})


def fingerprint(path: str) -> str:
    """A local model's name in journals: its path, and a mark of its files that changes when it is trained anew."""
    folder = Path(model_folder(path))
    if not folder.is_dir():
        return path
    files = sorted((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in folder.iterdir())
    return f"{path}@{hashlib.sha256(repr(files).encode()).hexdigest()[:12]}"
