"""Settings that name a judge on the command line, shared by several commands."""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import UseAppendAction, arg

from fapo.config.options import Steps, default_cache
from fapo.config.ranges import CRITIQUE_TOKENS, Count
from fapo.config.sampling import Requests
from fapo.errors import ConfigError
from fapo.types import AnswerFormat

if TYPE_CHECKING:
    from fapo.config.schema import CascadeJudge, ModelJudge

OF_CRITIQUES = ("template", "format", "votes", "temperature", "extra_body", "max_tokens", "logprobs")
"""Options that only a judge which writes critiques has."""
OF_PRM = ("threshold", "separator", "prompt", "tokenizer")
"""Options that only a process reward model has."""


@dataclass(frozen=True, kw_only=True)
class NamedJudge:
    """The model of a judge by its addresses, and how it answers."""

    judge: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="URL")] = ()
    """Address of a server of the judge, once for each; or local:PATH, a folder or Hugging Face id to load here. A
    process reward model is prm:URL or prm:PATH, a cascade cascade:FILE, a TOML file with its [judge] table."""
    model: str = ""
    """Name under which the servers know the judge."""
    revision: str | None = None
    """Any text that changes with the weights behind the name, such as a commit; the cache keeps revisions apart."""
    steps: Steps = None
    format: AnswerFormat = "boxed"
    """Form of the verdict: boxed, or json for servers that can enforce a JSON schema (llama.cpp, vLLM, SGLang, ...)."""
    votes: int = 1
    """Number of critiques for each solution; their most frequent answer is the verdict."""
    temperature: float | None = None
    """Sampling temperature; the default is 0 (greedy) for one vote and 0.6 for several."""
    max_tokens: int = CRITIQUE_TOKENS
    """Length limit of a critique in tokens."""
    extra_body: str = ""
    """JSON object with further fields of each request, such as {"reasoning_effort": "low"}; null leaves a field out."""
    logprobs: bool = False
    """Give each verdict a flag_probability, by the log probabilities of its tokens, which are requested."""


@dataclass(frozen=True, kw_only=True)
class ModelSettings(Requests, NamedJudge):
    """A judge by its addresses, with the limits of its requests and its cache; each command adds the prompt."""

    concurrency: Count = 64
    """Number of requests under way at once, over all servers; a model in this process ignores it."""
    threshold: float | None = None
    """Score below which a step is wrong, for prm: judges; the default is 0.5."""
    separator: str | None = None
    r"""Token that ends each step, for prm: judges; the default is <extra_0>, \n is a line break."""
    prompt: Literal["chat", "plain"] | None = None
    """Text before the steps, for prm: judges: the problem in the model's chat template (default), or as it stands."""
    tokenizer: str | None = None
    """Folder or Hugging Face id of the tokenizer, for prm:URL; the default is --model."""
    min_words: int = 0
    """Number of words and numbers outside boxes below which a solution is flagged without a judgement; 0 is off."""
    cache: Path | None = None
    """SQLite file that keeps all critiques; the default lies beside the output file, with suffix .cache.sqlite, and is
    ./fapo.cache.sqlite for fapo bench without one. fapo check-judge and fapo serve have none by default."""
    no_cache: bool = False
    """Ask the judge again for critiques that the cache holds."""

    def changed_settings(self, without: Collection[str] = ()) -> list[str]:
        """Return the names of a judge's settings that differ from their defaults, sorted, without some names."""
        names = {f.name for f in fields(ModelSettings)} | {"template"}
        changed = [f.name for f in fields(self) if f.name in names and getattr(self, f.name) != f.default]
        return sorted(set(changed) - set(without))

    def cache_beside(self, out: Path | None) -> Path:
        """Return the response cache: the one that is set, or that beside an output file."""
        return self.cache or default_cache(out)

    def judge_with(self, template: str, cache: Path | None = None) -> ModelJudge | CascadeJudge:
        """Return the judge as a config.

        Args:
            template: Prompt of the judge.
            cache: Response cache of a judge for which none is set; None: it has none.

        Returns:
            Settings of a served or a local judge, of a process reward model, or of a cascade.

        Raises:
            ConfigError: No address or several different models are given, a setting is out of range, or it is for
                another kind of judge.
        """
        from fapo.config.schema import PRMJudge, ServedJudge  # slow to import, as is the next
        from fapo.judge import from_config as made

        cache = self.cache or cache
        is_prm = any(address.startswith(made.PRM_PREFIX) for address in self.judge)
        if any(address.startswith(made.CASCADE_PREFIX) for address in self.judge):
            given = self.changed_settings({"judge", "cache", "no_cache"})
            if len(self.judge) > 1 or given:
                what = f"--{given[0].replace('_', '-')}" if given else "a second --judge"
                raise ConfigError(f"{what} does not go with --judge {self.judge[0]}: set it in that file")
            return made.command_line_cascade(self.judge[0].removeprefix(made.CASCADE_PREFIX), cache)
        of_others = OF_CRITIQUES if is_prm else OF_PRM
        if unused := [name for name in self.changed_settings() if name in of_others]:
            remedy = "a process reward model writes no critique" if is_prm else "it is for prm: judges"
            raise ConfigError(f"--{unused[0].replace('_', '-')} does not go with this --judge: {remedy}; remove it")
        known = {f.name for f in fields(PRMJudge if is_prm else ServedJudge)} - {"model"}
        settings = {f.name: getattr(self, f.name) for f in fields(ModelSettings) if f.name in known} | {"cache": cache}
        if is_prm:
            settings["separator"] = self.separator and self.separator.replace("\\n", "\n")
            return made.command_line_prm(self.judge, self.model, **settings)
        settings |= {"template": template, "extra_body": json_object("--extra-body", self.extra_body)}
        return made.command_line_judge(self.judge, self.model, **settings)


@dataclass(frozen=True, kw_only=True)
class JudgeSettings(ModelSettings):
    """A judge by its addresses, with its prompt and its sampling."""

    template: str = "locate"
    """Prompt: locate, locate_small, yes_no, compact or a file."""

    def judge_config(self, cache: Path | None = None) -> ModelJudge | CascadeJudge:
        """Return the judge as a config; see `judge_with`."""
        return self.judge_with(self.template, cache)


@dataclass(frozen=True, kw_only=True)
class CheckSettings(JudgeSettings):
    """A judge that is checked on ten built-in solutions."""

    template: str = ""
    """Prompt: locate, locate_small, yes_no, compact or a file; the default compares those for natural language."""


def json_object(option: str, text: str) -> dict[str, Any]:
    """Return the JSON object in an option; empty for an empty text. Raise ConfigError if it is none."""
    try:
        found = json.loads(text or "{}")
    except json.JSONDecodeError as error:
        raise ConfigError(f"{option} {text!r}: not JSON ({error}); quote it for the shell") from None
    if not isinstance(found, dict):
        raise ConfigError(f'{option} {text!r}: not a JSON object; write, for example, {{"reasoning_effort": "low"}}')
    return found


def judge_name(judge: ModelJudge | CascadeJudge) -> str:
    """Return the model, prompt and sampling of a judge as text, without the addresses of its servers."""
    from fapo.config.schema import CascadeJudge, CritiqueJudge, ModelJudge, PRMJudge, ServedJudge  # slow to import
    from fapo.judge.template import load_template

    if isinstance(judge, CascadeJudge):
        low, high = judge.thresholds
        cheap, strong = (judge_name(part) for _, part in judge.parts if isinstance(part, ModelJudge))
        return f"cascade of {cheap}; for a score of a flaw between {low:g} and {high:g}: {strong}"
    if isinstance(judge, PRMJudge):
        name = f"{judge.model}, process reward model, threshold {judge.threshold:g}, separator {judge.separator!r}"
        name += f", prompt {judge.prompt}" + (f", min words {judge.min_words}" if judge.min_words else "")
        return name + (f", steps {judge.steps}" if judge.steps else "")
    assert isinstance(judge, CritiqueJudge)
    prompt = f"{judge.template} ({zlib.crc32(load_template(judge.template).text.encode('utf-8')):08x})"
    sampling = f"plurality of {judge.votes} votes, " if judge.votes > 1 else ""
    sampling += f"temperature {judge.temperature:g}, max tokens {judge.max_tokens}"
    sampling += f", min words {judge.min_words}" if judge.min_words else ""
    sampling += f", steps {judge.steps}" if judge.steps else ""
    if isinstance(judge, ServedJudge) and judge.extra_body:
        sampling += f", {json.dumps(judge.extra_body, sort_keys=True)}"
    sampling += ", logprobs" if judge.logprobs else ""
    sampling += ", json" if isinstance(judge, ServedJudge) and judge.format == "json" else ""
    return f"{judge.model}, prompt {prompt}, {sampling}"
