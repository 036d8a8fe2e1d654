"""The options by which `fapo judge` and `fapo bench` name a judge and say how it is asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import UseAppendAction, arg

if TYPE_CHECKING:
    from fapo.config.schema import ModelJudge


@dataclass(frozen=True)
class JudgeOptions:
    """Who judges, and how."""

    judge: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="URL")] = ()
    """Address of an OpenAI-compatible server, once for each server; or a model to load into this process: local:PATH (a
    folder or Hugging Face id) or miniature:genrm."""
    model: str = ""
    """Name under which the servers know the judge."""
    template: str = "locate"
    """Prompt: locate, yes_no, compact or a file."""
    votes: int = 1
    """Critiques for each solution; the majority is the verdict."""
    temperature: float | None = None
    """Sampling temperature; by default 0 (greedy), with several votes 0.6."""
    max_tokens: int = 1024
    """Length limit of a critique in tokens."""
    concurrency: int = 64
    """Requests under way at once, over all servers; a model in this process does without, as without the next two."""
    timeout: float = 600.0
    """Seconds for one try of a request."""
    deadline: float | None = None
    """Seconds for one judgement, all tries together."""
    min_words: int = 0
    """A solution with fewer words and numbers outside its boxes is flagged without asking; 0: all are asked
    about."""
    cache: Path | None = None
    """SQLite file that keeps all critiques; by default beside --out, with the suffix .cache.sqlite."""
    no_cache: bool = False
    """Ask anew what is in the cache."""

    def config(self, out: Path | None) -> ModelJudge:
        """The judge, with a cache beside `out` unless another is named. Raises ConfigError for what cannot be."""
        from fapo.judge.from_config import command_line_judge

        return command_line_judge(
            self.judge,
            self.model,
            template=self.template,
            votes=self.votes,
            temperature=self.temperature,
            max_tokens=self.max_tokens,
            concurrency=self.concurrency,
            timeout=self.timeout,
            deadline=self.deadline,
            min_words=self.min_words,
            cache=self.cache or (out and out.with_suffix(".cache.sqlite")),
        )
