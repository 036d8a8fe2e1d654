"""Agreement of two verdicts on the same solutions: judge and person, judge and oracle, two judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fapo.evaluation.intervals import Interval, wilson_interval
from fapo.evaluation.metrics import fp_ratio
from fapo.judge.quality import cohen_kappa

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

    @property
    def ratios(self) -> tuple[float, float]:
        """FP ratio by the first, and by the second source."""
        return fp_ratio(self.num_flawed[0], self.num), fp_ratio(self.num_flawed[1], self.num)

    @property
    def intervals(self) -> tuple[Interval, Interval, Interval]:
        """95 % intervals of the two FP ratios and of the agreement rate."""
        first, second, same = (wilson_interval(k, self.num) for k in (*self.num_flawed, self.num_agreed))
        return first, second, same


def agreement(of: str, pairs: Sequence[tuple[Finding, Finding]], num_silent: int) -> Agreement:
    """Return the agreement of two sources of verdicts.

    Args:
        of: Name of the comparison.
        pairs: Findings of the first and of the second source, one pair for each solution.
        num_silent: Number of solutions that lack a verdict.

    Returns:
        Counts and Cohen's kappa.
    """
    first, second = [one[0] for one, _ in pairs], [other[0] for _, other in pairs]
    steps = [(one[1], other[1]) for one, other in pairs if one[1] is not None and other[1] is not None]
    return Agreement(
        of,
        len(pairs),
        num_silent,
        (sum(first), sum(second)),
        sum(a == b for a, b in zip(first, second, strict=True)),
        (sum(a == b for a, b in steps), len(steps)),
        cohen_kappa(first, second),
    )
