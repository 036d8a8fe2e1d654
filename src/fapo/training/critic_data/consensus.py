"""Consensus, agreement, balance and precision of a teacher's votes on solutions. Pure functions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from fapo.judge.quality import ratio
from fapo.types import LabelledSolution, Verdict


def consensus(votes: Sequence[Verdict]) -> Verdict | None:
    """Return the first vote if all votes name the same position; None if they differ or one has no verdict.

    Source: the paper trains its GenRM on such data, from three votes of one teacher.
    """
    assert votes, "a consensus needs at least one vote"
    first = votes[0]
    position = first.flawed, first.error_step
    agreed = first.status == "ok" and all((vote.flawed, vote.error_step) == position for vote in votes)
    return first if agreed else None


def pairwise_agreement(votes: Sequence[Sequence[Verdict]]) -> float:
    """Return the rate of agreement in all pairs of votes on one solution; NaN without pairs.

    Two votes agree if they name the same position. A vote without a verdict agrees with no other vote. The shape of
    `votes` is [num_solutions, num_votes].
    """
    pairs = [consensus(pair) is not None for given in votes for pair in combinations(given, 2)]
    return ratio(sum(pairs), len(pairs))


def balance(solutions: Sequence[LabelledSolution], seed: int) -> list[LabelledSolution]:
    """Return as many flawed as correct solutions: all of the rarer kind, and a random choice of the other kind.

    Args:
        solutions: Labelled solutions.
        seed: Seed of the random choice.

    Returns:
        Solutions that are kept, in order.
    """
    flawed = [i for i, solution in enumerate(solutions) if solution.error_step is not None]
    correct = [i for i, solution in enumerate(solutions) if solution.error_step is None]
    num = min(len(flawed), len(correct))
    rng = random.Random(seed)
    return [solutions[i] for i in sorted([*rng.sample(flawed, num), *rng.sample(correct, num)])]


@dataclass(frozen=True)
class LabelPrecision:
    """Precision of labels against the truth."""

    n: int
    """Number of labels."""
    precision: float
    """Rate of true labels: equal to the true first wrong step, or to "no error"; NaN without labels."""
    flawed: float
    """Rate of true labels among those that name a step; NaN without such labels."""
    correct: float
    """Rate of true labels among those that say "no error"; NaN without such labels."""


def label_precision(labels: Sequence[int | None], truth: Sequence[int | None]) -> LabelPrecision:
    """Compare labels with the truth.

    Args:
        labels: Index of the first wrong step, None for no error, [num_labels].
        truth: True index of the first wrong step, None for no error, [num_labels].

    Returns:
        Precision of all labels, of those that name a step, and of those that do not.

    Raises:
        ValueError: The lengths differ.
    """
    if len(labels) != len(truth):
        raise ValueError(f"one truth is needed for each label; got {len(truth)} for {len(labels)} labels")
    hits = [(label is not None, label == true) for label, true in zip(labels, truth, strict=True)]
    flawed = [hit for names_step, hit in hits if names_step]
    no_error = [hit for names_step, hit in hits if not names_step]
    return LabelPrecision(len(hits), *(ratio(sum(some), len(some)) for some in (flawed + no_error, flawed, no_error)))
