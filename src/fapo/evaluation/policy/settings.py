"""What an evaluation is asked to do: the questions and the settings of `fapo eval`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from fapo.config.load import check_ranges
from fapo.config.schema import Count, ModelJudge, NonNegative, Positive, TopP
from fapo.data.load import load_problems
from fapo.data.problems import sampling_key
from fapo.errors import ConfigError
from fapo.inference.models import ModelSpec
from fapo.types import Problem


@dataclass(frozen=True)
class Plan:
    """What is evaluated and how."""

    policy: ModelSpec
    """Who answers."""
    data: tuple[str, ...]
    """Questions: files, Hugging Face ids, miniature:SPLIT."""
    out: Path
    """JSONL file for the table of questions."""
    k: Count = 1
    """Samples of each question."""
    judge: ModelJudge | None = None
    """Who looks for flaws in the samples with a right answer; None: nobody."""
    prompt: Path | None = None
    """The policy's prompt: a file with {{problem}}; unset: the question as it stands."""
    temperature: NonNegative = 1.0
    """Sampling temperature; 0 is greedy."""
    top_p: TopP = 1.0
    """Nucleus sampling; 1 = off."""
    max_tokens: Count = 2048
    """Length limit of a sample in tokens."""
    split: str | None = None
    """Split of Hugging Face data sets; unset: the only one there is."""
    limit: Count | None = None
    """Only so many questions of each source, a fixed random choice."""
    seed: int = 0
    """For the order of choices and for samples of a model in this process; another seed asks everybody anew."""
    require_box: bool = False
    r"""Only a \\boxed{} is a final answer."""
    concurrency: Count = 64
    """Requests under way at once; of a model in this process, samples in one batch."""
    timeout: Positive = 600.0
    """Seconds for one try of a request."""
    fresh: bool = False
    """Ask anew what is in the cache."""

    def __post_init__(self) -> None:
        check_ranges(self, "fapo eval")
        if self.k > 1 and not self.temperature:
            raise ConfigError("several samples at temperature 0 are all the same; set temperature, such as 1.0")
        if not self.data:
            raise ConfigError("no data given: fapo eval DATA [DATA ...] --policy ...")
        if self.out.suffix != ".jsonl":
            raise ConfigError(f"{self.out}: must end in .jsonl; summary (.json) and cache come beside it")

    @property
    def cache(self) -> Path:
        """Where all that the models say is kept."""
        return self.out.with_suffix(".cache.sqlite")


def load_questions(plan: Plan) -> list[Problem]:
    """The questions of all sources, in order; choices are shuffled by the seed. Raises DataError, with the place."""
    chosen: list[Problem] = []
    for source in plan.data:
        found = load_problems(source, split=plan.split, seed=plan.seed)
        kept = {problem.id for problem in sorted(found, key=lambda problem: sampling_key(problem.id))[: plan.limit]}
        chosen += [problem for problem in found if problem.id in kept]
    if twice := [key for key, num in Counter((p.source, p.id) for p in chosen).items() if num > 1]:
        raise ConfigError(f"two sources are both called {twice[0][0]!r}; name each once, or rename a file")
    return chosen
