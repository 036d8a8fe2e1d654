"""Cost of a judgement: the tokens of a critique, and how long it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from fapo.types import Verdict


@dataclass(frozen=True)
class CritiqueCost:
    """Mean cost of the critiques behind some verdicts."""

    tokens: float
    """Mean length in tokens, over the critiques where it is known; NaN if it is known nowhere."""
    seconds: float
    """Mean time from a request until its answer was there, where it is known; NaN if it is known nowhere."""


def critique_cost(verdicts: Sequence[Verdict]) -> CritiqueCost:
    """Return the mean tokens and seconds of the critiques behind verdicts, one of each verdict."""
    return CritiqueCost(_mean([v.num_tokens for v in verdicts]), _mean([v.seconds for v in verdicts]))


def _mean(values: Sequence[float]) -> float:
    """Return the mean of the values that are not 0, which means unknown; NaN if there is none."""
    known = [value for value in values if value]
    return fmean(known) if known else float("nan")
