"""A cascade of two judges: the strong one is asked only where the cheap one is not sure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, TypeVar

from fapo.errors import ConfigError
from fapo.inference.usage import UsageMeter
from fapo.types import Given, Judge, Problem, Rollout, Verdict, unwrapped

Item = TypeVar("Item")
Solution = tuple[Problem, Sequence[str | Given]]
"""A problem and the steps of a solution."""


class StepJudge(Judge, Protocol):
    """A judge that also takes solutions in steps, as a GenRM or a process reward model does."""

    async def judge_steps(self, solutions: Sequence[Solution]) -> list[Verdict]:
        """Return one verdict for each solution with given steps, in order."""


def flaw_score(verdict: Verdict, by_probability: bool = False) -> float | None:
    """Return how sure a judge is of a flaw, from 0 (there is none) to 1; no score is calibrated.

    It is 1 minus the lowest step score of a process reward model. For a vote it is the rate of votes that flag, and for
    a single critique 0 or 1. By probability, it is `Verdict.flag_probability`, and 1 for a solution that is flagged
    unread.

    Args:
        verdict: Verdict of the judge.
        by_probability: Whether critiques are scored by the probability of a flaw.

    Returns:
        The score; None without a verdict, and by probability without one.
    """
    if verdict.status != "ok":
        return None
    if verdict.scores:
        return 1.0 - min(verdict.scores)
    if by_probability and not verdict.reason:
        return verdict.flag_probability
    return float(bool(verdict.flawed)) if verdict.flag_rate is None else verdict.flag_rate


def is_sure(verdict: Verdict, thresholds: tuple[float, float], by_probability: bool = False) -> bool:
    """Return whether a verdict of the cheap judge stands.

    Args:
        verdict: Verdict of the cheap judge.
        thresholds: Scores of a flaw between which the strong judge is asked, both included.
        by_probability: Whether critiques are scored by the probability of a flaw.

    Returns:
        True for a verdict that flags with a score above the second threshold, or clears with one below the first.
    """
    score, (low, high) = flaw_score(verdict, by_probability), thresholds
    if score is None:
        return False
    return score > high if verdict.flawed else score < low


@dataclass(frozen=True)
class Cascade:
    """A `Judge` that asks the cheap judge about every solution, and the strong one where the cheap one is not sure."""

    cheap: Judge
    """Judge that reads every solution."""
    strong: Judge
    """Judge that is asked where the cheap one is not sure, or has no verdict."""
    thresholds: tuple[float, float]
    """Scores of a flaw between which the strong judge is asked, both included."""
    usage: UsageMeter = field(default_factory=UsageMeter, repr=False, compare=False)
    """Tokens of both judges."""
    by_probability: bool = False
    """Whether critiques of the cheap judge are scored by the probability of a flaw."""

    def __post_init__(self) -> None:
        """Raise ConfigError if the judges split solutions into different steps."""
        if len(rules := {judge.steps: None for judge in judges_in(self) if hasattr(judge, "steps")}) > 1:
            raise ConfigError(
                f"the judges of a cascade split solutions into {' and '.join(rules)}; make both by one rule"
            )

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Verdict]:
        """Return one verdict for each rollout, in order."""
        return await self._ask(self.cheap, self.strong, rollouts)

    async def judge_steps(self, solutions: Sequence[Solution]) -> list[Verdict]:
        """Return one verdict for each solution with given steps, in order; both judges must be a `StepJudge`."""
        cheap: StepJudge = self.cheap  # type: ignore[assignment]
        strong: StepJudge = self.strong  # type: ignore[assignment]
        return await self._ask(cheap.judge_steps, strong.judge_steps, solutions)

    async def _ask(
        self,
        cheap: Callable[[Sequence[Item]], Awaitable[list[Verdict]]],
        strong: Callable[[Sequence[Item]], Awaitable[list[Verdict]]],
        items: Sequence[Item],
    ) -> list[Verdict]:
        """Return the verdicts of the cheap judge, and those of the strong one in place of the unsure ones."""
        verdicts = [_given_by("cheap", verdict) for verdict in await cheap(items)]
        sure = [is_sure(verdict, self.thresholds, self.by_probability) for verdict in verdicts]
        unsure = [index for index, is_kept in enumerate(sure) if not is_kept]
        if unsure:
            better = await strong([items[index] for index in unsure])
            for index, verdict in zip(unsure, better, strict=True):
                verdicts[index] = combined(verdicts[index], verdict)
        return verdicts


def judges_in(judge: Judge | None) -> Iterator[Judge]:
    """Yield a judge, those that it is wrapped around, and both judges of a cascade among them; nothing for None."""
    for part in unwrapped(judge):
        yield part
        if isinstance(part, Cascade):
            yield from judges_in(part.cheap)
            yield from judges_in(part.strong)


def combined(cheap: Verdict, strong: Verdict) -> Verdict:
    """Return the verdict of the strong judge, with the tokens and seconds of both.

    Args:
        cheap: Verdict of the cheap judge.
        strong: Verdict of the strong judge on the same solution.

    Returns:
        The verdict. A failure of the strong judge stays one: the cheap judge was not sure.
    """
    return replace(_given_by("strong", strong, all_tokens(cheap)), seconds=cheap.seconds + strong.seconds)


def all_tokens(verdict: Verdict) -> int:
    """Return the tokens of all critiques behind a verdict; `Verdict.all_tokens` is 0 where there is only one."""
    return verdict.all_tokens or verdict.num_tokens


def _given_by(judge: Literal["cheap", "strong"], verdict: Verdict, further_tokens: int = 0) -> Verdict:
    """Return a verdict that says which judge gave it, with the tokens of all critiques."""
    return replace(verdict, given_by=judge, all_tokens=all_tokens(verdict) + further_tokens)
