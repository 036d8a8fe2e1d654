"""What a teacher's votes on a solution are worth: consensus, agreement, balance, precision against the truth. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from fapo.judge.quality import ratio
from fapo.types import LabelledSolution, Verdict


def consensus(votes: Sequence[Verdict]) -> Verdict | None:
    """The verdict on whose position all votes agree, the first of them; None if they differ or one is no verdict.

    Source: the data of the paper's GenRM (three votes of one teacher).
    """
    assert votes, "nothing to agree on"
    first = votes[0]
    position = first.flawed, first.error_step
    agreed = first.status == "ok" and all((vote.flawed, vote.error_step) == position for vote in votes)
    return first if agreed else None


def pairwise_agreement(votes: Sequence[Sequence[Verdict]]) -> float:
    """Share of all pairs of votes on one solution that name the same position; `votes`: [num_solutions, k].

    A vote that is no verdict agrees with none. NaN without pairs.
    """
    pairs = [consensus(pair) is not None for of_one in votes for pair in combinations(of_one, 2)]
    return ratio(sum(pairs), len(pairs))


def balance(solutions: Sequence[LabelledSolution], seed: int) -> list[LabelledSolution]:
    """As many flawed as sound ones: all of the rarer kind, of the other as many, drawn at random; order is kept."""
    flawed = [i for i, solution in enumerate(solutions) if solution.error_step is not None]
    sound = [i for i, solution in enumerate(solutions) if solution.error_step is None]
    num = min(len(flawed), len(sound))
    rng = random.Random(seed)
    return [solutions[i] for i in sorted([*rng.sample(flawed, num), *rng.sample(sound, num)])]


@dataclass(frozen=True)
class LabelPrecision:
    """How many of the labels are true, where the truth is known."""

    n: int
    """Labels."""
    precision: float
    """Labels equal to the true first wrong step (or to "none") / labels; NaN without labels, as below."""
    flawed: float
    """The same, of the labels that name a step."""
    sound: float
    """The same, of the labels that say there is none."""


def label_precision(labels: Sequence[int | None], truth: Sequence[int | None]) -> LabelPrecision:
    """Compare labels with the truth, both as index of the first wrong step, None for none.

    Raises ValueError when the lengths differ.
    """
    if len(labels) != len(truth):
        raise ValueError(f"one truth is needed for each label; got {len(truth)} for {len(labels)} labels")
    hits = [(label is not None, label == true) for label, true in zip(labels, truth, strict=True)]
    flawed = [hit for names_step, hit in hits if names_step]
    sound = [hit for names_step, hit in hits if not names_step]
    return LabelPrecision(len(hits), *(ratio(sum(some), len(some)) for some in (flawed + sound, flawed, sound)))
