"""Settings of `fapo critic` and `fapo critiques`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, UseAppendAction, arg

from fapo.config.options import AnswerCheck, Options, Steps, default_cache
from fapo.config.ranges import CRITIQUE_TOKENS, Count, NonNegative, Rate, check_ranges
from fapo.config.sampling import Requests, Sampling
from fapo.errors import ConfigError, install

if TYPE_CHECKING:
    from fapo.inference.models import ModelSpec


@dataclass(frozen=True, kw_only=True)
class CriticSettings:
    """Policies that solve problems, and the teacher that labels the solutions."""

    problems: str
    """Questions: a file (.jsonl, .json, .parquet), a Hugging Face id or miniature:SPLIT."""
    policy: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="URL")]
    """Address of a server of a policy, or local:PATH for a model to load here; may be given several times."""
    policy_model: UseAppendAction[tuple[str, ...]] = ()
    """Name under which a server knows its policy: once for each server, or once for all."""
    teacher: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="URL")]
    """Address of a server of the teacher, once for each; or local:PATH for a model to load here."""
    teacher_model: str = ""
    """Name under which the servers know the teacher."""
    out: Path
    """Data file: .jsonl for fapo and TRL, .parquet for verl. Beside it lie the card, the cache (.cache.sqlite), and the
    folder (.work) with all rollouts and votes."""
    samples: Annotated[Count, arg(aliases=["-n"])] = 4
    """Number of solutions of each policy to each question."""
    votes: Count = 3
    """Number of verdicts of the teacher on each solution; a solution is kept if all name the same position."""
    template: str = "locate"
    """Prompt of the teacher: locate, compact or a file."""
    steps: Steps = None
    prompt: Path | None = None
    """Prompt of the policies: boxed, gsm8k or a file with {{problem}} in it; the default is the question alone."""
    checker: AnswerCheck = "math"
    sampling: Options[Sampling] = Sampling(temperature=1.0)
    """Sampling of the policies."""
    teacher_temperature: NonNegative = 0.6
    """Sampling temperature of the teacher."""
    teacher_max_tokens: Count = CRITIQUE_TOKENS
    """Length limit of a critique in tokens."""
    limit: Count | None = None
    """Number of questions that are used, from the first on; the default is all."""
    balance: bool = True
    """Keep as many flawed solutions as correct ones."""
    seed: int = 0
    """Seed of the balance and of models in this process. Another seed takes nothing from the cache."""
    requests: Options[Requests] = Requests()
    """Limits of the requests to the servers."""

    def __post_init__(self) -> None:
        check_ranges(self, "fapo critic")
        if self.samples > 1 and not self.sampling.temperature:
            raise ConfigError("several solutions at temperature 0 are all the same; set temperature, such as 1.0")
        if self.votes > 1 and not self.teacher_temperature:
            raise ConfigError("votes at teacher temperature 0 always agree; set it, such as to 0.6")
        if self.out.suffix not in (".jsonl", ".parquet"):
            raise ConfigError(f"{self.out}: must end in .jsonl, or in .parquet for verl; rename it")
        if self.out.suffix == ".parquet" and not find_spec("pyarrow"):
            raise ConfigError(f"{self.out}: writing Parquet needs pyarrow: {install('train')}")

    @property
    def cache(self) -> Path:
        """Response cache with all answers of the policies and the teacher."""
        return default_cache(self.out)

    @property
    def folder(self) -> Path:
        """Folder of the records of all rollouts and all votes."""
        return self.out.with_suffix(".work")

    def policy_specs(self) -> tuple[ModelSpec, ...]:
        """Return the policies; raise ConfigError if addresses and names do not fit together, or two names are equal."""
        from fapo.inference.models import model_specs  # here, because it makes `fapo --help` slower

        policies = model_specs(self.policy, self.policy_model, "--policy")
        if len({policy.name for policy in policies}) < len(policies):
            raise ConfigError("two policies have the same name; name each once")
        return policies

    def teacher_spec(self) -> ModelSpec:
        """Return the teacher; raise ConfigError if its addresses name no model or several."""
        from fapo.inference.models import model_spec  # here, because it makes `fapo --help` slower

        return model_spec(self.teacher, self.teacher_model, "--teacher")


@dataclass(frozen=True, kw_only=True)
class CritiquesSettings:
    """Labelled solutions, and the judge that writes critiques of them."""

    data: Positional[str]
    """Labelled solutions: a file (.jsonl, .json, .parquet), a Hugging Face id or miniature:critic-train."""
    judge: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="URL")]
    """Address of a server of the judge that writes critiques, once for each; or local:PATH for a model to load here."""
    model: str = ""
    """Name under which the servers know the judge."""
    out: Path
    """Data file for method sft, .jsonl. Beside it lie the cache (.cache.sqlite) and the folder (.work) with all
    critiques, also rejected ones."""
    samples: Annotated[Count, arg(aliases=["-n"])] = 4
    """Number of critiques of each solution; all distinct ones that name its label are kept."""
    template: str = "locate"
    """Prompt of the judge: locate, compact or a file. Train with the same one."""
    sampling: Options[Sampling] = Sampling(temperature=1.0, max_tokens=CRITIQUE_TOKENS)
    """Sampling of the judge."""
    limit: Count | None = None
    """Number of solutions that are used, from the first on; the default is all."""
    label_noise: Rate = 0.0
    """Rate of labels that are made wrong before critiques are compared with them."""
    seed: int = 0
    """Seed of the label noise and of models in this process. Another seed takes nothing from the cache."""
    requests: Options[Requests] = Requests()
    """Limits of the requests to the servers."""

    def __post_init__(self) -> None:
        check_ranges(self, "fapo critiques")
        if self.samples > 1 and not self.sampling.temperature:
            raise ConfigError("temperature must be above 0: several critiques at temperature 0 are all the same")
        if self.out.suffix != ".jsonl":
            raise ConfigError(f"{self.out}: must end in .jsonl; rename it")

    @property
    def cache(self) -> Path:
        """Response cache with all critiques."""
        return default_cache(self.out)

    def judge_spec(self) -> ModelSpec:
        """Return the judge; raise ConfigError if its addresses name no model or several."""
        from fapo.inference.models import model_spec  # here, because it makes `fapo --help` slower

        return model_spec(self.judge, self.model, "--judge")
