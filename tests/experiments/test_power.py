"""Tests of the power of a paired t test."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from experiments.paper.power import detectable_effect, seeds_needed


def test_the_detectable_effect_is_that_of_power_tables() -> None:
    # Cohen 1988: a paired t test at 5 % with power .8 needs 34 pairs for d = .5, and 8 pairs for d = 1.2 (power .83)
    assert detectable_effect(34) == pytest.approx(0.5, abs=0.01)
    assert 1.1 < detectable_effect(8) < 1.2


def test_a_simulated_test_finds_the_detectable_effect_in_four_of_five_cases() -> None:
    draws = np.random.default_rng(0).normal(detectable_effect(8), 1.0, (20_000, 8))
    assert (stats.ttest_1samp(draws, 0.0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.01)


@pytest.mark.parametrize("effect", [0.3, 1.0, 3.0, 20.0])
def test_the_seeds_needed_are_the_fewest(effect: float) -> None:
    values = effect + np.array([-1.0, 0.0, 1.0])  # their standard deviation is 1
    needed = seeds_needed(list(values))
    assert needed is not None
    assert detectable_effect(needed) <= effect
    assert needed == 2 or detectable_effect(needed - 1) > effect


def test_no_number_of_seeds_finds_a_mean_of_zero_and_any_finds_a_constant() -> None:
    assert seeds_needed([1.0, -1.0]) is None
    assert seeds_needed([0.5, 0.5, 0.5]) == 2
