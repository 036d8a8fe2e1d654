"""How critic data is made: the settings of `fapo critic`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from fapo.config.load import check_ranges
from fapo.config.schema import Count, NonNegative, Positive
from fapo.errors import ConfigError
from fapo.inference.models import ModelSpec


@dataclass(frozen=True)
class CriticConfig:
    """How critic data is made."""

    problems: str
    """Where the questions come from: a file, a Hugging Face id or "miniature:SPLIT"."""
    policies: tuple[ModelSpec, ...]
    """Who solves them."""
    teacher: ModelSpec
    """Who looks for the first wrong step."""
    out: Path
    """The data: .jsonl for fapo and TRL, .parquet for verl. Card and work folder lie beside it."""
    num_samples: Count = 4
    """Solutions of each policy to each question."""
    votes: Count = 3
    """Verdicts of the teacher on each solution; the label counts if all agree."""
    template: str = "locate"
    """The teacher's prompt: a built-in name or a file."""
    prompt: Path | None = None
    """The policies' prompt: a file with {{problem}}; unset: the question as it stands."""
    temperature: NonNegative = 1.0
    """Sampling temperature of the policies."""
    teacher_temperature: NonNegative = 0.6
    """Sampling temperature of the teacher."""
    max_tokens: Count | None = None
    """Length limit of a solution in tokens; unset: the server's, or models.LOCAL_MAX_TOKENS."""
    teacher_max_tokens: Count | None = None
    """The same for a critique."""
    limit: Count | None = None
    """Use only the first so many questions."""
    balance: bool = True
    """Keep as many flawed as sound solutions."""
    seed: int = 0
    """Seeds the balance and models in this process; servers draw as they like."""
    concurrency: Count = 64
    """Requests under way at once."""
    timeout: Positive = 600.0
    """Seconds a request may take."""

    def __post_init__(self) -> None:
        check_ranges(self, "fapo critic")
        if len({policy.name for policy in self.policies}) < len(self.policies):
            raise ConfigError("two policies have the same name; name each once")
        if self.num_samples > 1 and not self.temperature:
            raise ConfigError("several solutions at temperature 0 are all the same; set temperature, such as 1.0")
        if self.votes > 1 and not self.teacher_temperature:
            raise ConfigError("votes at teacher temperature 0 always agree; set it, such as to 0.6")
        if self.out.suffix not in (".jsonl", ".parquet"):
            raise ConfigError(f"{self.out}: must end in .jsonl, or in .parquet for verl; rename it")
        if self.out.suffix == ".parquet" and not find_spec("pyarrow"):
            raise ConfigError(f"{self.out}: writing Parquet needs pyarrow: pip install 'fapo[train]'")

    @property
    def folder(self) -> Path:
        """Where the rollouts and votes are kept as they arrive."""
        return self.out.with_suffix(".work")
