"""Settings of `fapo judge`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fapo.config.options import AnswerCheck, Files, Prices
from fapo.config.ranges import check_ranges
from fapo.evaluation.judge_settings import JudgeSettings


@dataclass(frozen=True, kw_only=True)
class AuditSettings(JudgeSettings):
    """Solutions that are audited, and the judge."""

    files: Files
    """JSONL, JSON or Parquet files, also those of `fapo eval`, or Hugging Face ids; - is JSONL from standard input."""
    out: Path
    """JSONL file for the verdicts, one row for each solution in the files, in order."""
    all: bool = False
    """Judge solutions with a wrong final answer, too."""
    references: str = ""
    """Data set with the correct answers, found by the text of the problem, for rows that have none."""
    checker: AnswerCheck = "math"
    require_box: bool = False
    r"""Accept only a \boxed{} as a final answer."""
    prices: Prices = None
    skip_bad: bool = False
    """Report rows that cannot be read and continue; by default the first one stops the audit before any judgement."""

    def __post_init__(self) -> None:
        check_ranges(self, "fapo judge")
