"""First-error credit: against tables, by its invariants, and its place in texts and tokens."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.config.schema import FirstErrorReward
from fapo.errors import EngineError
from fapo.rewards.advantages import group_advantages
from fapo.rewards.first_error import (
    Parts,
    begins_well,
    first_error_advantages,
    parts_of,
    tokens_before,
)
from fapo.rewards.scorer import PolicyScorer, advantages_of_parts, batch_advantages
from fapo.types import Given, Problem, Rollout, ScoredRollout, Verdict

HALF = math.sqrt(0.5)
RESPONSE = "one\n\ntwo\n\nthree"
VERDICTS = {
    "a": Verdict.from_step(None),
    "f": Verdict.from_step(1),
    "F": Verdict.from_step(0),
    "w": Verdict.from_step(2),
    "W": Verdict.from_step(0),
    "c": Verdict.from_step(None),
    "u": Verdict("failed", reason="no answer"),
    "x": Verdict("failed", reason="no answer"),
}
"""Classes of rollouts: a fully correct; f flawed; w wrong; F, W the same with an error in the first step; c wrong, and
the judge finds no error; u right and x wrong, without a verdict."""
CORRECT = "afFu"


def scored(kind: str, penalty: float = 2.0) -> ScoredRollout:
    """Return a rollout of a class, scored as in training."""
    scorer = PolicyScorer(FirstErrorReward(penalty=penalty), None)
    rollout, correct = Rollout(Problem("p", "", "1"), RESPONSE), kind in CORRECT
    return ScoredRollout(rollout, correct, VERDICTS[kind], scorer.reward(rollout, correct, VERDICTS[kind]))


def parts(group: str, penalty: float = 2.0) -> tuple[list[float], list[float]]:
    """Return both advantages of the rollouts of a group."""
    before, after = advantages_of_parts([scored(kind, penalty) for kind in group], [0] * len(group))
    return before.tolist(), after.tolist()


@pytest.mark.parametrize(
    ("group", "penalty", "before", "after"),
    [
        ("aW", 2.0, [0, 0], [HALF, -HALF]),  # nothing comes before the error: plain GRPO
        ("w", 2.0, [HALF], [-HALF]),  # a rollout alone is compared with its own beginning
        ("ww", 2.0, [math.sqrt(0.75)] * 2, [-math.sqrt(0.75)] * 2),  # a group without a correct answer learns
        ("f", 2.0, [HALF], [-HALF]),
        ("f", 1.0, [HALF], [-HALF]),  # 1 and 0
        ("f", 0.0, [0], [0]),  # the flaw costs nothing
        ("WW", 2.0, [0, 0], [0, 0]),
        ("aa", 2.0, [0, 0], [0, 0]),
        ("ac", 2.0, [0, 0], [HALF, -HALF]),
        ("ax", 2.0, [0, 0], [HALF, -HALF]),
        ("uaW", 2.0, [0, 0, 0], [0, HALF, -HALF]),
    ],
)
def test_values(group: str, penalty: float, before: list[float], after: list[float]) -> None:
    found = parts(group, penalty)
    np.testing.assert_allclose(found, [before, after], rtol=3e-4, atol=1e-12)


def test_the_length_penalty_lowers_the_credit_of_the_steps_before_the_error() -> None:
    scorer = PolicyScorer(FirstErrorReward(penalty=2.0, overlong_buffer=10), None, max_tokens=20)
    rollouts = [Rollout(Problem("p", "", "1"), RESPONSE, num_tokens) for num_tokens in (10, 15)]
    verdict = VERDICTS["w"]
    group = [ScoredRollout(r, False, verdict, scorer.reward(r, False, verdict)) for r in rollouts]
    found = np.concatenate(advantages_of_parts(group, [0, 0]))
    np.testing.assert_allclose(found, group_advantages([[1.0, 0.5, -1.0, -1.5]])[0], rtol=1e-12)


groups = st.text("afFwWcux", min_size=1, max_size=12)
penalties = st.floats(0, 3)


@given(groups, penalties)
def test_invariants(group: str, penalty: float) -> None:
    before, after = (np.array(found) for found in parts(group, penalty))
    kinds = np.array([*group])
    located = (kinds == "f") | (kinds == "w")
    assert before.sum() + after.sum() == pytest.approx(0, abs=1e-8)
    assert (before[~located] == 0).all()
    assert (before[located] >= after[located]).all(), "steps before an error are never worse than the error"
    assert (before[located] >= -1e-12).all(), "no part has a larger reward"
    assert (after[kinds == "u"] == 0).all()
    if not located.any():  # the advantages of FAPO
        rewards = [[scored(kind, penalty).reward.value for kind in group]]
        np.testing.assert_allclose(after, group_advantages(rewards)[0], atol=1e-12)


@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 6), st.integers(0, 6), st.floats(0.1, 3))
def test_where_a_flaw_is_discouraged(sound: int, flawed: int, wrong: int, begun: int, penalty: float) -> None:
    """The condition in the docstring of the module; `begun` wrong rollouts have right steps before their error."""
    group = "a" * sound + "f" + "F" * flawed + "W" * wrong + "w" * begun
    before, after = parts(group, penalty)
    beta = (wrong + begun) / len(group)
    alpha, extra = sound / len(group), (1 + begun) / len(group)  # one flawed positive and all of `begun` begin well
    if abs(margin := penalty * (alpha + extra) - (2 - penalty) * beta) > 1e-6:
        assert (after[sound] < 0) == (margin > 0)
    assert before[sound] >= 0


def test_the_recorded_advantage_is_that_of_the_wrong_step() -> None:
    rows, names = [scored(kind) for kind in "afwaWu"], [0, 0, 0, 1, 1, 1]
    _, error = advantages_of_parts(rows, names)
    np.testing.assert_array_equal(batch_advantages(rows, names, FirstErrorReward()), error)
    assert advantages_of_parts([], [])[0].shape == (0,)


@pytest.mark.parametrize(
    ("verdict", "start", "end"),
    [
        (Verdict.from_step(2), "one\n\ntwo\n\n", RESPONSE),
        (Verdict.from_step(1), "one\n\n", "one\n\ntwo\n\n"),
        (Verdict.from_step(0), "", "one\n\n"),
        (Verdict.from_step(None), None, None),
        (Verdict("ok", True), None, None),  # a judge that says yes or no
        (Verdict("failed", reason="no answer"), None, None),
        (None, None, None),
    ],
)
def test_the_place_of_the_error(verdict: Verdict | None, start: str | None, end: str | None) -> None:
    rollout = Rollout(Problem("p", "", "1"), RESPONSE)
    assert begins_well(verdict) == bool(start)
    for share in (True, False):
        found = parts_of(rollout, verdict, "paragraphs", 0.5, -1.0, share)
        if start is None or end is None:
            assert found == Parts(RESPONSE, 0, len(RESPONSE), 0.0, -1.0)
        else:
            assert verdict
            before = 0.5 / (verdict.error_step or 1) if share else 0.5
            assert found == Parts(RESPONSE, len(start), len(end), before, -1.0)


@given(st.lists(st.text("aé\n", min_size=0, max_size=3), max_size=12), st.data())
def test_tokens_before_a_place(pieces: list[str], data: st.DataObject) -> None:
    text = "".join(pieces)
    place = data.draw(st.integers(0, len(text)))
    found = tokens_before(range(len(pieces)), place, lambda first: "".join(pieces[i] for i in first))
    assert len("".join(pieces[:found])) >= place
    assert found == 0 or len("".join(pieces[: found - 1])) < place


@given(st.integers(2, 12), st.integers(1, 11))
def test_more_steps_before_an_error_do_not_earn_more(num_steps: int, error_step: int) -> None:
    """A judge that names some step of a wrong rollout, whichever, would reward length otherwise."""
    rollout = Rollout(Problem("p", "", "1"), "\n".join(["3-1=2"] * num_steps))
    verdict = Verdict.from_step(min(error_step, num_steps - 1))
    number = verdict.error_step or 0
    credit = {share: number * parts_of(rollout, verdict, "lines", 1.0, -1.0, share).before for share in (True, False)}
    assert credit == {True: pytest.approx(1.0), False: number}


def test_a_rollout_of_several_turns_is_refused() -> None:
    rollout = Rollout(Problem("p7", "", "1"), RESPONSE, earlier_turns=("a call", Given("its result")))
    with pytest.raises(EngineError, match=r"problem p7 has several turns; .* use plain FAPO"):
        parts_of(rollout, None, "paragraphs", 0.0, 0.0)


def test_a_step_that_the_rollout_does_not_have_is_refused() -> None:
    rollout = Rollout(Problem("p7", "", "1"), "one\ntwo")
    assert parts_of(rollout, Verdict.from_step(1), "lines", 0.5, -1.0).start == len("one\n")
    with pytest.raises(EngineError, match=r"names step 1, .* of problem p7, which has 1 by the rule .*`steps`"):
        parts_of(rollout, Verdict.from_step(1), "paragraphs", 0.5, -1.0)
    empty = Rollout(Problem("p7", "", "1"), "")
    assert parts_of(empty, Verdict.from_step(0), "lines", 0.5, -1.0) == Parts("", 0, 0, 0.5, -1.0)


def test_bad_tables_are_refused() -> None:
    with pytest.raises(ValueError, match="num_prompts"):
        first_error_advantages(np.zeros((1, 2, 2)), np.zeros((1, 2, 2)))
    with pytest.raises(ValueError, match="finite"):
        first_error_advantages([[math.inf, 1.0]], [[False, False]])
