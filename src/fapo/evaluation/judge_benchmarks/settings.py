"""Settings of `fapo bench`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, UseAppendAction, arg

from fapo.config.ranges import NonNegative, check_ranges
from fapo.errors import ConfigError
from fapo.evaluation.judge_settings import JudgeSettings

Benchmark = Literal["flawed-positive", "process"]
"""Name of a benchmark."""
RULES: dict[str, int | None] = {"flag-all": 0, "flag-none": None}
"""Judges that read nothing, with the first wrong step that they always name; None for no wrong step."""


def _data(data: UseAppendAction[tuple[tuple[str, ...], ...]] = ()) -> tuple[str, ...]:
    """Return the values of `--data`, which may be given several times, each time with several values.

    Args:
        data: JSONL or Parquet files with rows as in ProcessBench, Hugging Face ids, or miniature:critic-test.

    Returns:
        All values in one tuple.
    """
    return sum(data, ())


@dataclass(frozen=True, kw_only=True)
class BenchSettings(JudgeSettings):
    """A benchmark, and the judge or the file of predictions that is scored on it.

    The judge may also be flag-all or flag-none, which read nothing.
    """

    benchmark: Positional[Benchmark]
    """flawed-positive: find flawed solutions among those with a correct answer. process: find the first wrong step."""
    data: Annotated[tuple[str, ...], arg(constructor=_data)] = ()
    """JSONL or Parquet files with rows as in ProcessBench, Hugging Face ids, or miniature:critic-test."""
    predictions: Path | None = None
    """File of rows {id, error_step, status} or {id, scores} that is scored in place of a judge."""
    threshold: float = 0.5
    """Score below which a step counts as wrong, for predictions with scores."""
    invalid: Literal["wrong", "flagged"] = "wrong"
    """Meaning of an answer without a verdict in flawed-positive; flagged is the convention of the public script."""
    concurrency: int = 32
    """Number of requests under way at once, over all servers; a model in this process ignores it."""
    limit: int | None = None
    """Number of rows of each source that are used, a fixed random choice; the default is all."""
    prices: tuple[NonNegative, NonNegative, NonNegative] | None = None
    """Prices of a million prompt, cached and completion tokens of the judge, in any currency, to show the cost."""
    out: Path | None = None
    """File for the answers of the judge, which --predictions reads; the cache lies beside it."""

    def __post_init__(self) -> None:
        check_ranges(self, "fapo bench")
        if (self.predictions is None) == (not self.judge):
            raise ConfigError("give either --predictions FILE or --judge (URL, local:PATH, flag-all, flag-none)")
        if self.predictions and self.out:
            raise ConfigError("--out is for answers of a --judge; leave it out with --predictions")

    @property
    def rule(self) -> str:
        """Name of the judge that reads nothing; empty for any other."""
        return self.judge[0] if len(self.judge) == 1 and self.judge[0] in RULES else ""
