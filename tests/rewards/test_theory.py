"""Closed forms of the theory, against simulated groups."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fapo.config.schema import FapoReward
from fapo.rewards.advantages import group_advantages
from fapo.rewards.consistency_filter import kept_rollouts
from fapo.rewards.first_error import first_error_advantages
from fapo.rewards.policy import corrected_reward, fapo_reward
from fapo.rewards.theory import (
    corrected_mean,
    decoupled_shift_ratio,
    equivalent_penalty,
    expected_advantages,
    fapo_mean,
    fapo_variance,
    flawed_rho,
    rho,
    shift_ratio,
    shrink_ratio,
)

counts = st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30)).filter(lambda c: sum(c) > 0)


penalties = st.sampled_from([0.0, 0.25, 0.5, 2 / 3, 1.0, 4 / 3, 1.5, 2.0, 3.0, 4.0])


def group_of(num_fully_correct: int, num_flawed: int, num_wrong: int, penalty: float) -> np.ndarray:
    verdicts = [(True, False)] * num_fully_correct + [(True, True)] * num_flawed + [(False, None)] * num_wrong
    return np.array([fapo_reward(correct, flawed, penalty) for correct, flawed in verdicts])


@given(counts, penalties)
def test_closed_forms_equal_simulated_populations(classes: tuple[int, int, int], penalty: float) -> None:
    rewards = group_of(*classes, penalty)
    alpha, _, beta = (number / sum(classes) for number in classes)
    assert fapo_mean(alpha, beta, penalty) == pytest.approx(rewards.mean(), abs=1e-12)
    assert fapo_variance(alpha, beta, penalty) == pytest.approx(rewards.var(), abs=1e-12)
    if np.ptp(rewards) > 0:
        normalised = (rewards - rewards.mean()) / rewards.std()
        first = np.cumsum([0, *classes])[:3]
        for number, index, advantage in zip(classes, first, expected_advantages(alpha, beta, penalty), strict=True):
            if number:
                assert advantage == pytest.approx(normalised[index], abs=1e-9)


def decoupled_population(classes: tuple[int, int, int], weight: float) -> np.ndarray:
    """Return decoupled advantages of a population: without Bessel's correction, and without eps."""
    right = np.arange(sum(classes)) < classes[0] + classes[1]
    outcome, flawed = np.where(right, 1.0, -1.0), np.repeat([0.0, -1.0, 0.0], classes)
    out = (outcome - outcome.mean()) / (outcome.std() or 1.0)
    if right.any():
        out[right] += weight * (flawed[right] - flawed[right].mean()) / (flawed[right].std() or 1.0)
    return out


weights = st.sampled_from([0.25, 0.5, 1.0, 2.0])


@given(counts, weights)
def test_the_variance_of_decoupled_advantages(classes: tuple[int, int, int], weight: float) -> None:
    assume(min(classes) > 0)
    variance = decoupled_population(classes, weight).var()
    assert variance == pytest.approx(1 + weight**2 * (1 - classes[2] / sum(classes)))


@given(counts, weights)
def test_decoupled_advantages_keep_the_gap_of_plain_grpo(classes: tuple[int, int, int], weight: float) -> None:
    population = decoupled_population(classes, weight)
    assert population.mean() == pytest.approx(0, abs=1e-12)
    if min(classes) > 0:
        num_right = classes[0] + classes[1]
        plain_correct, _, plain_wrong = expected_advantages(classes[0] / sum(classes), classes[2] / sum(classes), 0.0)
        gap = population[:num_right].mean() - population[num_right:].mean()
        assert gap == pytest.approx(plain_correct - plain_wrong)


@given(counts, weights)
def test_decoupled_flawed_positives_change_sign_at_their_shift_ratio(
    classes: tuple[int, int, int], weight: float
) -> None:
    assume(min(classes) > 0)
    alpha, _, beta = (number / sum(classes) for number in classes)
    ratio, shift = rho(classes[0], classes[2]), decoupled_shift_ratio(alpha, beta, weight)
    assume(not math.isclose(ratio, shift, rel_tol=1e-9))
    assert (decoupled_population(classes, weight)[classes[0]] < 0) == (ratio > shift)
    if weight >= 1:
        assert shift < shift_ratio(1.0), "earlier than under FAPO with lambda = 1"


def test_the_decoupled_shift_ratio_needs_fully_correct_rollouts() -> None:
    for alpha, weight in ((0.0, 1.0), (0.5, 0.0)):
        with pytest.raises(ValueError, match="must be above 0"):
            decoupled_shift_ratio(alpha, 0.2, weight)


def expected_filtered_advantages(alpha: float, beta: float, keep: float) -> tuple[float, float, float]:
    """Return the mean advantage of each class under the consistency filter in the limit of large groups.

    Of the kept rollouts a fraction p is correct, with the advantage sqrt((1 - p) / p); the others have
    -sqrt(p / (1 - p)). p is 1/2 if there are enough of both kinds. The means are over all rollouts of a class: dropped
    ones have the advantage 0, and so has every flawed positive. `keep` is the fraction of the group that is kept.
    """
    right = min(alpha, max(keep / 2, keep - beta))
    wrong = min(beta, keep - right)
    if right == 0 or wrong == 0:
        return 0.0, 0.0, 0.0
    return math.sqrt(wrong / right) * right / alpha, 0.0, -math.sqrt(right / wrong) * wrong / beta


@given(counts, st.sampled_from([2, 3, 4, 8, 16, 90]))
def test_closed_form_of_the_consistency_filter(classes: tuple[int, int, int], keep: int) -> None:
    size = sum(classes)
    assume(keep <= size and keep % 2 == 0)
    alpha, _, beta = (number / size for number in classes)
    kinds = np.repeat([*"afw"], classes)
    kept = kept_rollouts([kinds == "a"], [kinds == "w"], keep)[0]
    rewards, advantages = np.where(kinds == "w", -1.0, 1.0), np.zeros(size)
    if kept.any() and np.ptp(rewards[kept]) > 0:
        advantages[kept] = (rewards[kept] - rewards[kept].mean()) / rewards[kept].std()
    expected = expected_filtered_advantages(alpha, beta, keep / size)
    for kind, mean in zip("afw", expected, strict=True):
        if (kinds == kind).any():
            assert advantages[kinds == kind].mean() == pytest.approx(mean, abs=1e-9)


@given(st.integers(1, 20), st.integers(0, 30), st.integers(0, 20), st.integers(0, 20))
def test_moments_of_the_consistency_filter_with_enough_rollouts(
    half: int, num_flawed: int, more_sound: int, more_wrong: int
) -> None:
    kinds = np.repeat([*"afw"], [half + more_sound, num_flawed, half + more_wrong])
    kept = kept_rollouts([kinds == "a"], [kinds == "w"], 2 * half)[0]
    rewards = np.where(kinds == "w", -1.0, 1.0)[kept]
    assert (rewards.mean(), rewards.var()) == (0, 1)


@given(counts, penalties, st.integers(0, 20))
def test_moments_of_first_error_credit(classes: tuple[int, int, int], penalty: float, begun: int) -> None:
    """`begun` rollouts of the group have steps before their error."""
    alpha, _, beta = (number / sum(classes) for number in classes)
    assume(begun <= classes[1] + classes[2])
    rewards = np.append(group_of(*classes, penalty), np.ones(begun))
    mean, ratio = fapo_mean(alpha, beta, penalty), begun / len(rewards)
    assert rewards.mean() == pytest.approx((1 - ratio) * mean + ratio)
    variance = (1 - ratio) * (fapo_variance(alpha, beta, penalty) + ratio * (1 - mean) ** 2)
    assert rewards.var() == pytest.approx(variance, abs=1e-12)
    begins = np.arange(sum(classes)) >= sum(classes) - begun
    before, error = first_error_advantages([group_of(*classes, penalty)], [begins])
    if rewards.std() > 0:  # the same numbers as in training, which has Bessel's correction
        scale = rewards.std(ddof=1) + 1e-4
        assert error[0] * scale == pytest.approx(rewards[: sum(classes)] - rewards.mean(), abs=1e-9)
        assert before[0][begins] * scale == pytest.approx((1 - rewards.mean()) * np.ones(begun), abs=1e-9)


@given(counts, penalties)
def test_variance_formula_as_published(classes: tuple[int, int, int], penalty: float) -> None:
    alpha, gamma, beta = (number / sum(classes) for number in classes)
    assume(classes[0] + classes[2] > 0)
    growth = penalty * gamma * (1 - gamma) * (penalty - 4 / (rho(classes[0], classes[2]) + 1))
    plain = fapo_variance(alpha, beta, 0.0)
    assert plain == pytest.approx(4 * beta * (1 - beta), abs=1e-12)
    assert fapo_variance(alpha, beta, penalty) == pytest.approx(plain + growth, abs=1e-12)


@given(counts, penalties)
def test_flawed_positives_change_sign_exactly_at_the_shift_ratio(classes: tuple[int, int, int], penalty: float) -> None:
    num_fully_correct, num_flawed, num_wrong = classes
    assume(num_flawed > 0 and num_fully_correct + num_wrong > 0)
    advantage = group_advantages([group_of(*classes, penalty)])[0, num_fully_correct]
    ratio, shift = rho(num_fully_correct, num_wrong), shift_ratio(penalty)
    if math.isclose(ratio, shift, rel_tol=1e-9, abs_tol=1e-9) or ratio == shift:
        assert advantage == pytest.approx(0, abs=1e-9)
    else:
        assert (advantage < 0) == (ratio > shift)


@given(counts, penalties.filter(lambda p: p > 0))
def test_what_shrinks_beyond_the_shrink_ratio_is_the_gap(classes: tuple[int, int, int], penalty: float) -> None:
    assume(min(classes) > 0)
    alpha, gamma, beta = (number / sum(classes) for number in classes)
    correct, flawed, wrong = expected_advantages(alpha, beta, penalty)
    plain_correct, _, plain_wrong = expected_advantages(alpha, beta, 0.0)
    ratio, shrink = rho(classes[0], classes[2]), shrink_ratio(penalty)
    if not math.isclose(ratio, shrink, rel_tol=1e-9):
        assert (correct - wrong < plain_correct - plain_wrong) == (ratio > shrink)
    # At every rho, fully correct rollouts gain and correct answers as a whole lose.
    assert correct > plain_correct
    if penalty <= 2:
        assert (alpha * correct + gamma * flawed) / (alpha + gamma) < plain_correct


@pytest.mark.parametrize(
    ("penalty", "shift", "shrink"), [(0.0, math.inf, math.inf), (1.0, 1.0, 3.0), (2.0, 0.0, 1.0), (4.0, -0.5, 0.0)]
)
def test_thresholds(penalty: float, shift: float, shrink: float) -> None:
    assert (shift_ratio(penalty), shrink_ratio(penalty)) == (shift, shrink)


@pytest.mark.parametrize(("ratio", "penalty"), [(0.0, 2.0), (0.5, 4 / 3), (1.0, 1.0), (2.0, 2 / 3)])
def test_the_penalty_of_a_config_puts_the_shift_where_it_says(ratio: float, penalty: float) -> None:
    assert FapoReward(shift=ratio).penalty == pytest.approx(penalty)
    assert shift_ratio(penalty) == pytest.approx(ratio)


GROUPS = st.integers(1, 6).flatmap(
    lambda size: st.lists(st.lists(st.sampled_from("afw"), min_size=size, max_size=size), min_size=1, max_size=8)
)


@given(GROUPS, st.floats(0.1, 2.0))
def test_flawed_positives_of_a_batch_change_sign_at_their_own_rho(groups: list[list[str]], penalty: float) -> None:
    ratio = flawed_rho(*([group.count(kind) for group in groups] for kind in "afw"))
    assume(not math.isnan(ratio) and abs(ratio - shift_ratio(penalty)) > 1e-9)
    earned = {"a": 1.0, "f": 1.0 - penalty, "w": -1.0}
    advantages = group_advantages([[earned[kind] for kind in group] for group in groups], scale=False)
    mean = advantages[np.array(groups) == "f"].mean()
    assert (mean < 0) == (ratio > shift_ratio(penalty))


def test_flawed_rho() -> None:
    assert flawed_rho([1, 8], [2, 0], [4, 0]) == 1 / 4, "a solved group does not count"
    assert flawed_rho([2, 3], [1, 2], [1, 2]) == (2 + 6) / (1 + 4)
    assert flawed_rho([1], [1], [0]) == math.inf
    assert math.isnan(flawed_rho([1], [0], [3]))
    assert math.isnan(flawed_rho([], [], []))
    with pytest.raises(ValueError, match="num_groups"):
        flawed_rho([1], [1, 2], [1])
    with pytest.raises(ValueError, match="negative"):
        flawed_rho([1], [-1], [1])


def test_rho() -> None:
    assert rho(3, 2) == 1.5
    assert rho(0, 2) == 0.0
    assert rho(3, 0) == math.inf
    assert math.isnan(rho(0, 0))
    with pytest.raises(ValueError, match="negative"):
        rho(-1, 2)


def test_expected_advantages_are_zero_where_all_rewards_are_equal() -> None:
    for alpha, beta, penalty in [(1.0, 0.0, 1.0), (0.0, 1.0, 1.0), (0.0, 0.0, 1.0), (0.0, 0.3, 2.0), (0.4, 0.0, 0.0)]:
        assert expected_advantages(alpha, beta, penalty) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(("alpha", "beta"), [(-0.1, 0.5), (0.5, -0.1), (0.6, 0.5), (math.nan, 0.1)])
def test_fractions_must_be_fractions(alpha: float, beta: float) -> None:
    for function in (fapo_mean, fapo_variance, expected_advantages):
        with pytest.raises(ValueError, match="must be fractions"):
            function(alpha, beta, 1.0)


# --- the reward corrected for the errors of a judge ----------------------------------------------------------------


judges = st.tuples(st.floats(0.05, 1), st.floats(0, 0.95)).filter(lambda pair: pair[0] > pair[1] + 0.01)


@given(st.floats(0, 1), st.floats(0, 3), judges)
def test_the_mean_of_a_class_is_that_over_the_verdicts_on_it(
    flag_rate: float, penalty: float, assumed: tuple[float, float]
) -> None:
    flagged, cleared = (corrected_reward(True, flawed, penalty, *assumed) for flawed in (True, False))
    expected = flag_rate * flagged + (1 - flag_rate) * cleared
    assert corrected_mean(flag_rate, penalty, *assumed) == pytest.approx(expected, abs=1e-6)


@given(st.floats(0, 3), judges, st.floats(0, 1), st.floats(0, 1))
def test_rates_that_are_too_good_penalise_at_most_lambda_and_no_less_than_without_a_correction(
    penalty: float, judge: tuple[float, float], up: float, down: float
) -> None:
    recall, rate = judge
    assumed = recall + up * (1 - recall), rate * down
    assume(assumed[0] <= 1)
    fully_correct, flawed = (corrected_mean(q, penalty, *assumed) for q in (rate, recall))
    assert penalty * (recall - rate) - 1e-9 <= fully_correct - flawed <= penalty + 1e-9


@given(st.floats(0, 3), judges, st.floats(0, 1))
def test_no_correction_by_averages_finds_a_blind_spot(penalty: float, judge: tuple[float, float], seen: float) -> None:
    """Flaws of one kind are never flagged, those of the other kind always; `seen` is the fraction of the latter."""
    _, rate = judge
    recall = seen
    assume(recall > rate + 0.01)
    unseen, fully_correct, found = (corrected_mean(q, penalty, recall, rate) for q in (0.0, rate, 1.0))
    assert unseen >= fully_correct >= 1 - 1e-9
    assert found <= 1 - penalty + 1e-9
    assert (1 - seen) * unseen + seen * found == pytest.approx(1 - penalty), "right on average only"


@given(counts, st.floats(0, 3), judges)
def test_a_correction_has_the_advantages_of_another_penalty(
    classes: tuple[int, int, int], penalty: float, judge: tuple[float, float]
) -> None:
    """Classes are those of the judge: cleared, flagged, wrong. Both corrections are such penalties."""
    verdicts = [(True, False)] * classes[0] + [(True, True)] * classes[1] + [(False, None)] * classes[2]
    rate = judge[1]
    for given_penalty, assumed in ((penalty, judge), (penalty * (1 - rate), (1.0, rate))):  # backward, forward
        corrected = [[corrected_reward(*verdict, given_penalty, *assumed) for verdict in verdicts]]
        other = equivalent_penalty(given_penalty, *assumed)
        plain = [[fapo_reward(*verdict, other) for verdict in verdicts]]
        assert group_advantages(corrected, eps=0) == pytest.approx(group_advantages(plain, eps=0), abs=1e-6)
        slope = 1 + given_penalty / (assumed[0] - assumed[1]) * rate / 2
        unscaled = slope * group_advantages(plain, scale=False)
        assert group_advantages(corrected, scale=False) == pytest.approx(unscaled, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(
    ("penalty", "recall", "rate", "expected"), [(1, 1, 0, 1), (1, 0.2, 0, 5), (1, 1, 0.5, 4 / 3), (0.5, 1, 0.5, 0.8)]
)
def test_known_penalties_of_corrections(penalty: float, recall: float, rate: float, expected: float) -> None:
    assert equivalent_penalty(penalty, recall, rate) == pytest.approx(expected)


def test_the_mean_corrected_reward_of_rates_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="recall must be above"):
        corrected_mean(0.5, 1.0, 0.3, 0.3)
    with pytest.raises(ValueError, match="penalty"):
        corrected_mean(0.5, -1.0, 0.5, 0.3)
