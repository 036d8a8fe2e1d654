"""Agreement of two verdicts on the same solutions: judge and person, judge and oracle, two judges."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fapo.data.jsonl import finite
from fapo.evaluation.intervals import Interval, decimal, group_sums, grouped_rate_interval, percent
from fapo.evaluation.metrics import fp_ratio
from fapo.judge.quality import cohen_kappa, ratio

Finding = tuple[bool, int | None]
"""Whether a solution is flawed, and the index of its first wrong step; None if no step is named."""


@dataclass(frozen=True)
class Agreement:
    """Agreement of a first and a second source of verdicts on the same correct solutions."""

    of: str
    """Name of the comparison."""
    num: int
    """Number of solutions with both verdicts."""
    num_silent: int
    """Number of solutions that lack a verdict; no other count includes them."""
    num_flawed: tuple[int, int]
    """Number of solutions that are flawed by the first, and by the second source."""
    num_agreed: int
    """Number of solutions on which both agree whether they are flawed."""
    num_located: tuple[int, int]
    """Number of solutions with the same first wrong step from both, and number with any step from both."""
    kappa: float
    """Cohen's kappa of flawed or not; NaN if both put all solutions into one class."""
    intervals: tuple[Interval, Interval, Interval]
    """95 % intervals of the two FP ratios and of the agreement rate; over problems where these repeat."""

    @property
    def ratios(self) -> tuple[float, float]:
        """FP ratio by the first, and by the second source."""
        return fp_ratio(self.num_flawed[0], self.num), fp_ratio(self.num_flawed[1], self.num)

    def as_json(self) -> dict[str, Any]:
        """Return the numbers by name; a number that is not defined is None."""
        first, second, same = self.intervals
        return finite(
            {
                "n": self.num,
                "num_missing": self.num_silent,
                "num_flawed": list(self.num_flawed),
                "fp_ratio": list(self.ratios),
                "fp_ratio_interval": [first, second],
                "num_agreed": self.num_agreed,
                "agreement": ratio(self.num_agreed, self.num),
                "agreement_interval": same,
                "kappa": self.kappa,
                "num_same_step": self.num_located[0],
                "num_both_steps": self.num_located[1],
            }
        )

    def text(self) -> str:
        """Return the numbers as text for a line of output."""
        first, second, same = self.intervals
        one, other = (percent(*pair) for pair in zip(self.ratios, (first, second), strict=True))
        agreed = percent(ratio(self.num_agreed, self.num), same)
        return (
            f"{self.of}: FP ratio {one} and {other}; they agree on {self.num_agreed} of {self.num} ({agreed}), "
            f"kappa {decimal(self.kappa)}, and name the same step in {self.num_located[0]} of {self.num_located[1]}"
        )


def agreement(
    of: str, pairs: Sequence[tuple[Finding, Finding]], problems: Sequence[Hashable], num_silent: int
) -> Agreement:
    """Return the agreement of two sources of verdicts.

    Args:
        of: Name of the comparison.
        pairs: Findings of the first and of the second source, one pair for each solution.
        problems: Key of the problem of each solution; solutions of one problem are not independent.
        num_silent: Number of solutions that lack a verdict.

    Returns:
        Counts and Cohen's kappa.
    """
    first, second = [one[0] for one, _ in pairs], [other[0] for _, other in pairs]
    steps = [(one[1], other[1]) for one, other in pairs if one[1] is not None and other[1] is not None]
    same_flag = [a == b for a, b in zip(first, second, strict=True)]
    *hits, rows = group_sums(np.column_stack([first, second, same_flag, np.ones(len(pairs))]), problems).T
    of_first, of_second, same = (grouped_rate_interval(of_one, rows) for of_one in hits)
    return Agreement(
        of,
        len(pairs),
        num_silent,
        (sum(first), sum(second)),
        sum(same_flag),
        (sum(a == b for a, b in steps), len(steps)),
        cohen_kappa(first, second),
        (of_first, of_second, same),
    )
