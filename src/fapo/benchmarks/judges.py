"""Who is asked: servers, a model in this process, or a rule that needs no model."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from fapo.client import ChatClient
from fapo.judge import Template, load_template
from fapo.models import LOCAL, loading, model_folder

if TYPE_CHECKING:
    from fapo.local import LocalModel

RULES = {"flag-all": 0, "flag-none": None}
"""Judges that read nothing -> the first wrong step they always name."""


@dataclass(frozen=True)
class JudgeSettings:
    """Which judge, and how it is asked."""

    judge: tuple[str, ...]
    """Base URLs of servers, or one of local:PATH, flag-all, flag-none."""
    model: str = ""
    """Name under which the servers know the model."""
    template: str = "locate"
    """Prompt: built-in name or file."""
    votes: int = 1
    """Answers for each solution; the majority is the verdict."""
    temperature: float = 0.0
    """Sampling temperature; 0 = greedy."""
    max_tokens: int = 4096
    """Length limit of a critique in tokens."""
    concurrency: int = 32
    """Requests under way at once; of a model in this process, rows in one batch."""

    def __post_init__(self) -> None:
        alone = [name for name in self.judge if name in RULES or name.startswith(LOCAL)]
        if not self.judge or (alone and len(self.judge) > 1):
            raise ValueError(f"judge must be URLs, or one of local:PATH, {', '.join(RULES)}; got {list(self.judge)}")
        if not alone and not self.model:
            raise ValueError("a served judge needs --model, the name under which the servers know it")
        if min(self.votes, self.max_tokens, self.concurrency) < 1 or not 0 <= self.temperature < float("inf"):
            raise ValueError("votes, max_tokens and concurrency must be at least 1, temperature not negative")
        if self.votes > 1 and self.temperature == 0 and self.judge[0] not in RULES:
            raise ValueError("several votes at temperature 0 are all the same; set --temperature, such as 0.6")

    @property
    def is_rule(self) -> bool:
        """It reads nothing."""
        return self.judge[0] in RULES

    @property
    def is_local(self) -> bool:
        """A model in this process."""
        return self.judge[0].startswith(LOCAL)

    @cached_property
    def prompt(self) -> Template:
        """The template."""
        return load_template(self.template)

    @property
    def located(self) -> bool:
        """Whether it says where the error is, not only that there is one."""
        return self.is_rule or self.prompt.kind == "locate"

    @property
    def name(self) -> str:
        """Model and settings: what must be the same for answers to be of one judge. Servers may move."""
        if self.is_rule:
            return self.judge[0]
        model = self.judge[0] if self.is_local else self.model
        prompt = f"{self.template} ({zlib.crc32(self.prompt.text.encode('utf-8')):08x})"
        return (
            f"{model}, prompt {prompt}, votes {self.votes}, temperature {self.temperature:g}, "
            f"max tokens {self.max_tokens}"
        )


def complete(settings: JudgeSettings) -> ChatClient | LocalModel:
    """The model behind a judge that is no rule."""
    if settings.is_local:
        return _local(settings)
    return ChatClient(
        settings.judge,
        settings.model,
        concurrency=settings.concurrency,
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
    )


def _local(settings: JudgeSettings) -> LocalModel:
    path = settings.judge[0].removeprefix(LOCAL)
    try:
        from fapo.local import LocalModel
    except ImportError:
        raise ValueError("a model in this process needs torch and transformers: pip install 'fapo[train]'") from None
    with loading("--judge", path):
        return LocalModel.load(
            model_folder(path),
            temperature=settings.temperature,
            max_tokens=settings.max_tokens,
            batch_size=settings.concurrency * settings.votes,
        )
