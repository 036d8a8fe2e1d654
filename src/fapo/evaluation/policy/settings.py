"""Settings of `fapo eval` and `fapo filter-problems`."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, UseAppendAction, arg

from fapo.config.options import AnswerCheck, Files, Options, default_cache
from fapo.config.ranges import CRITIQUE_TOKENS, Count, NonNegative, Rate, check_ranges
from fapo.config.sampling import Requests, Sampling
from fapo.errors import ConfigError
from fapo.evaluation.judge_settings import json_object
from fapo.types import AnswerFormat, StepRule

if TYPE_CHECKING:
    from fapo.config.schema import CascadeJudge, CritiqueJudge
    from fapo.inference.models import ModelSpec


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """One or several policies, the questions that they answer, and the judge that looks for flaws."""

    data: Files
    """Questions with known answers: .jsonl, .json or .parquet files, Hugging Face ids, or miniature:SPLIT."""
    policy: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="URL")]
    """Address of a server of the policy, once for each; or local:PATH, a folder or Hugging Face id to load here."""
    policy_model: UseAppendAction[tuple[str, ...]] = ()
    """Name under which the servers know the policy: one for all, or one for each server. Different names are different
    policies, as are different models to load here; all of them answer the same questions and are compared."""
    policy_revision: str | None = None
    """Any text that changes with the weights behind the policy's name; the cache keeps revisions apart."""
    out: Path
    """JSONL file for the table of questions; the summary (.json) and the cache (.cache.sqlite) lie beside it. Each of
    several policies has its own files, with its name before the suffix."""
    samples: Annotated[Count, arg(aliases=["-k"])] = 1
    """Number of samples of each question."""
    judge: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="URL")] = ()
    """Judge of the samples with a correct answer, named like the policy; or cascade:FILE, a TOML file with the [judge]
    table of a cascade. The default is none."""
    judge_model: str = ""
    """Name under which the servers know the judge."""
    judge_revision: str | None = None
    """Any text that changes with the weights behind the judge's name; the cache keeps revisions apart."""
    judge_template: str = "locate"
    """Prompt of the judge: locate, locate_small, yes_no, compact or a file."""
    judge_steps: StepRule | None = None
    """Steps of a sample: paragraphs, or lines where it has no empty line; the default is the template's own."""
    judge_format: AnswerFormat = "boxed"
    """Form of the verdict: boxed, or json for servers that can enforce a JSON schema (llama.cpp, vLLM, SGLang, ...)."""
    judge_extra_body: str = ""
    """JSON object with further fields of each request to the judge; null leaves a field out."""
    judge_votes: int = 1
    """Number of critiques for each sample; their most frequent answer is the verdict."""
    judge_temperature: float | None = None
    """Sampling temperature of the judge; the default is 0 (greedy) for one vote and 0.6 for several."""
    judge_max_tokens: int = CRITIQUE_TOKENS
    """Length limit of a critique in tokens."""
    verified_majority: bool = False
    """Let only samples without error vote, beside the plain vote. The judge reads wrong answers too, each with itself
    as the reference."""
    gold_judge: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="URL")] = ()
    """Stronger judge for a second opinion on the same samples, named like the policy; the default is none."""
    gold_judge_model: str = ""
    """Name under which the servers know the gold judge."""
    gold_judge_template: str = "locate"
    """Prompt of the gold judge: locate, locate_small, yes_no, compact or a file."""
    prompt: Path | None = None
    """Prompt of the policy: boxed, gsm8k or a file with {{problem}} in it; the default is the question alone."""
    sampling: Options[Sampling] = Sampling(temperature=1.0, top_p=1.0, max_tokens=2048)
    """Sampling of the policy."""
    split: str | None = None
    """Split of Hugging Face data sets; needed only where there are several."""
    limit: Count | None = None
    """Number of questions of each source that are used, a fixed random choice; the default is all."""
    seed: int = 0
    """Seed for the order of choices and for models in this process. Another seed takes nothing from the cache."""
    checker: AnswerCheck = "math"
    require_box: bool = False
    r"""Accept only a \boxed{} as a final answer, as in training."""
    requests: Options[Requests] = Requests()
    """Limits of the requests to policy and judge."""
    policy_prices: tuple[NonNegative, NonNegative, NonNegative] | None = None
    """Prices of a million prompt, cached and completion tokens of the policy, in any currency, to show the cost."""
    judge_prices: tuple[NonNegative, NonNegative, NonNegative] | None = None
    """Prices of a million prompt, cached and completion tokens of the judge, to show the cost."""
    gold_judge_prices: tuple[NonNegative, NonNegative, NonNegative] | None = None
    """Prices of a million prompt, cached and completion tokens of the gold judge, to show the cost."""
    no_cache: bool = False
    """Ask the models again for answers that the cache holds."""

    def __post_init__(self) -> None:
        check_ranges(self, "fapo eval")
        if self.samples > 1 and not self.sampling.temperature:
            raise ConfigError("several samples at temperature 0 are all the same; set temperature, such as 1.0")
        if not self.data:
            raise ConfigError("no data given: fapo eval DATA [DATA ...] --policy ...")
        if self.gold_judge and not self.judge:
            raise ConfigError("--gold-judge is a second opinion; name the first judge by --judge")
        for judge, addresses in (("judge", self.judge), ("gold_judge", self.gold_judge)):
            if not addresses and (given := self._changed_options(f"{judge}_")):
                option = f"--{judge.replace('_', '-')}"
                raise ConfigError(
                    f"{given[0]} has no effect without {option}; name that judge by {option}, or remove it"
                )
        if self.verified_majority and (not self.judge or self.samples == 1):
            raise ConfigError("--verified-majority is a vote of judged samples; name a --judge, and set -k above 1")
        if self.verified_majority and ":" in self.checker:
            raise ConfigError(
                f"--verified-majority is a vote of answers, and --checker {self.checker} finds none; leave one out"
            )
        if self.out.suffix != ".jsonl":
            raise ConfigError(f"{self.out}: must end in .jsonl; summary (.json) and cache come beside it")

    @property
    def cache(self) -> Path:
        """File that keeps all responses of policy and judge."""
        return default_cache(self.out)

    def policy_spec(self) -> ModelSpec:
        """Return the policy; raise ConfigError if its addresses name no model or several."""
        specs = self._policy_specs()
        if len(specs) > 1:
            raise ConfigError("--policy: several different models; see `EvalSettings.policies`")
        return replace(specs[0], revision=self.policy_revision)

    def policies(self) -> list[EvalSettings]:
        """Return the settings of each policy, with its own files; raise ConfigError if the addresses name no model."""
        specs = self._policy_specs()
        if len(specs) == 1:
            return [self]
        names = [re.sub(r"[^\w.-]+", "_", spec.name).strip("_.") for spec in specs]
        if twice := [name for name, num in Counter(names).items() if num > 1]:
            raise ConfigError(
                f"--policy: the files of two policies would both be called {twice[0]}; rename one of them"
            )
        return [
            replace(
                self,
                policy=spec.urls or (f"local:{spec.name}",),
                policy_model=(spec.name,) if spec.urls else (),
                out=self.out.with_stem(f"{self.out.stem}.{name}"),
            )
            for spec, name in zip(specs, names, strict=True)
        ]

    def _changed_options(self, prefix: str) -> list[str]:
        """Return the options with a prefix that differ from their defaults."""
        named = (f for f in fields(self) if f.name.startswith(prefix))
        return [f"--{f.name.replace('_', '-')}" for f in named if getattr(self, f.name) != f.default]

    def _policy_specs(self) -> tuple[ModelSpec, ...]:
        from fapo.inference.models import model_specs  # here, because it makes `fapo --help` slower

        return model_specs(self.policy, self.policy_model, "--policy")

    def judge_config(self) -> CritiqueJudge | CascadeJudge | None:
        """Return the judge; None without one. Raise ConfigError if its addresses or settings cannot be used."""
        from fapo.judge.from_config import CASCADE_PREFIX, command_line_cascade  # slow to import

        if not self.judge:
            return None
        if any(address.startswith(CASCADE_PREFIX) for address in self.judge):
            given = [option for option in self._changed_options("judge_") if option != "--judge-prices"]
            given += ["--verified-majority"] if self.verified_majority else []
            if len(self.judge) > 1 or given:
                raise ConfigError(f"{(given or ['a second --judge'])[0]} does not go with --judge {self.judge[0]}")
            return command_line_cascade(self.judge[0].removeprefix(CASCADE_PREFIX), self.cache)
        sampling: dict[str, Any] = {"votes": self.judge_votes, "temperature": self.judge_temperature}
        revision = {"revision": self.judge_revision}
        return self._judge(self.judge, self.judge_model, self.judge_template, "judge", **sampling, **revision)

    def gold_judge_config(self) -> CritiqueJudge | None:
        """Return the gold judge, which is greedy; None without one. Raise ConfigError if it cannot be used."""
        if not self.gold_judge:
            return None
        return self._judge(self.gold_judge, self.gold_judge_model, self.gold_judge_template, "gold-judge")

    def _judge(
        self, addresses: tuple[str, ...], model: str, template: str, option: str, **settings: Any
    ) -> CritiqueJudge:
        """Return a judge with the limits of this evaluation; `option` is the name of its option."""
        from fapo.judge.from_config import command_line_judge  # here, because it makes `fapo --help` slower

        return command_line_judge(
            addresses,
            model,
            options=(f"--{option}", f"--{option}-model"),
            template=template,
            steps=self.judge_steps,
            format=self.judge_format,
            extra_body=json_object("--judge-extra-body", self.judge_extra_body),
            max_tokens=self.judge_max_tokens,
            cache=self.cache,
            **asdict(self.requests),
            **settings,
        )


@dataclass(frozen=True, kw_only=True)
class FilterSettings:
    """Output of an evaluation, and the solve rates of the questions that are kept."""

    evaluation: Positional[Path]
    """Output of `fapo eval`, a row for each question."""
    out: Path
    """JSONL file for the questions that are kept, which data.train can name."""
    min_rate: Rate = 0.2
    """Lowest solve rate that is kept."""
    max_rate: Rate = 0.8
    """Highest solve rate that is kept."""

    def __post_init__(self) -> None:
        check_ranges(self, "fapo filter-problems")
        if self.min_rate > self.max_rate:
            raise ConfigError(f"--min-rate {self.min_rate:g} is above --max-rate {self.max_rate:g}; exchange them")
