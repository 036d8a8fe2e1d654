"""Consensus, agreement, balance and precision of labels."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.training.critic_data.consensus import balance, consensus, label_precision, pairwise_agreement
from fapo.types import LabelledSolution, Problem, Verdict

SOUND, FIRST, SECOND = Verdict.from_step(None), Verdict.from_step(0), Verdict.from_step(1)
UNPARSABLE, FAILED, SOMEWHERE = Verdict("unparsable"), Verdict("failed"), Verdict("ok", flawed=True)


CONSENSUS = [
    ([SOUND], SOUND),
    ([FIRST], FIRST),
    ([SOUND] * 3, SOUND),
    ([SECOND] * 3, SECOND),
    ([FIRST, FIRST, SECOND], None),
    ([SOUND, SOUND, FIRST], None),
    ([SOUND, SOUND, UNPARSABLE], None),
    ([FAILED, SOUND, SOUND], None),
    ([SOMEWHERE, SOUND], None),
    ([UNPARSABLE] * 3, None),
    ([FAILED], None),
]


@pytest.mark.parametrize(("votes", "agreed"), CONSENSUS)
def test_a_label_needs_all_votes_on_one_position(votes: list[Verdict], agreed: Verdict | None) -> None:
    assert consensus(votes) == agreed


VOTE = st.builds(Verdict.from_step, st.none() | st.integers(0, 2)) | st.sampled_from([UNPARSABLE, FAILED, SOMEWHERE])


@given(st.lists(VOTE, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_consensus_is_that_of_every_pair_in_any_order(votes: list[Verdict], rng: random.Random) -> None:
    agreed = consensus(votes)
    shuffled = rng.sample(votes, len(votes))
    assert (consensus(shuffled) is None) == (agreed is None)
    if agreed:
        assert {(vote.flawed, vote.error_step) for vote in votes} == {(agreed.flawed, agreed.error_step)}
    if len(votes) > 1:
        assert (pairwise_agreement([votes]) == 1.0) == (agreed is not None)


AGREEMENT = [
    ([[SOUND] * 3], 1.0),
    ([[SOUND, SOUND, FIRST]], 1 / 3),
    ([[SOUND, FIRST, SECOND]], 0.0),
    ([[UNPARSABLE] * 3], 0.0),
    ([[SOUND] * 3, [SOUND, SOUND, FIRST]], 2 / 3),
    ([[SOUND]], math.nan),
    ([], math.nan),
]


@pytest.mark.parametrize(("votes", "rate"), AGREEMENT)
def test_pairwise_agreement(votes: list[list[Verdict]], rate: float) -> None:
    assert pairwise_agreement(votes) == pytest.approx(rate, nan_ok=True)


def labelled(error_steps: list[int | None]) -> list[LabelledSolution]:
    return [LabelledSolution(Problem(f"p{i}", "?", "1"), ("a", "b"), e, True) for i, e in enumerate(error_steps)]


@given(st.lists(st.none() | st.integers(0, 1)), st.integers(0, 3))
def test_balance_keeps_all_of_the_rarer_kind_and_as_many_of_the_other(errors: list[int | None], seed: int) -> None:
    solutions = labelled(errors)
    kept = balance(solutions, seed)
    kinds = Counter(solution.error_step is None for solution in kept)
    assert kinds[True] == kinds[False] == min(errors.count(None), len(errors) - errors.count(None))
    assert kept == [solution for solution in solutions if solution in kept], "in order, none twice"
    assert kept == balance(solutions, seed)


def test_balance_draws_by_seed() -> None:
    solutions = labelled([None] * 50 + [0] * 5)
    assert len({tuple(s.problem.id for s in balance(solutions, seed)) for seed in range(5)}) > 1


PRECISION = [
    # labels, truth, precision of all labels, of those that name a step, of those that name none
    ([None, 0], [None, 0], 1.0, 1.0, 1.0),
    ([None, 0], [0, 1], 0.0, 0.0, 0.0),
    ([None, None, 1, 1, 0], [None, 2, 1, 0, None], 0.4, 1 / 3, 0.5),
    ([None], [None], 1.0, math.nan, 1.0),
    ([], [], math.nan, math.nan, math.nan),
]


@pytest.mark.parametrize(("labels", "truth", "precision", "flawed", "correct"), PRECISION)
def test_label_precision(labels: list, truth: list, precision: float, flawed: float, correct: float) -> None:
    found = label_precision(labels, truth)
    assert found.n == len(labels)
    assert (found.precision, found.flawed, found.correct) == pytest.approx((precision, flawed, correct), nan_ok=True)


def test_each_label_needs_its_truth() -> None:
    with pytest.raises(ValueError, match="got 1 for 2 labels"):
        label_precision([None, 0], [None])
