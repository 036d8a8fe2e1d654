"""A GenRM that earns less for a wrong reason: its rewards, and their closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.critique_reasons import unsound_line
from experiments.meta_verdict import MetaScorer, meta_scorer
from fapo.config.reader import load
from fapo.config.schema import GenRMOutcomeReward
from fapo.data.miniature.sets import CONFIG_FOLDER
from fapo.rewards.from_config import make_scorer
from fapo.rewards.theory import fapo_mean, fapo_variance
from fapo.types import Rollout
from tests.experiments.test_critique_reasons import FLAWED, SOUND, exact

CONFIG = load(CONFIG_FOLDER / "genrm.toml")
CRITIQUES = {
    "sound flag": (FLAWED, exact(FLAWED)),
    "sound pass": (SOUND, exact(SOUND)),
    "flag without a reason": (FLAWED, exact(FLAWED).split("\n")[-1]),
    "pass without a reason": (SOUND, exact(SOUND).split("\n")[-1]),
    "wrong flag": (SOUND, "\\boxed{0}"),
    "wrong pass": (FLAWED, exact(SOUND).split("\n")[-1]),
    "no verdict": (SOUND, "nothing"),
}
"""Name of a critique -> the solution it is about, and its text."""


def rewards(penalty: float) -> dict[str, float | None]:
    """Return the reward of each critique."""
    scorer = meta_scorer(penalty)(CONFIG, [FLAWED, SOUND])
    assert isinstance(scorer, MetaScorer)
    return {name: scorer.score(Rollout(s.problem, text)).reward.value for name, (s, text) in CRITIQUES.items()}


def test_only_a_right_label_with_a_wrong_reason_earns_less() -> None:
    plain = make_scorer(CONFIG, [FLAWED, SOUND])
    without = {name: plain.score(Rollout(s.problem, text)).reward.value for name, (s, text) in CRITIQUES.items()}
    assert rewards(0.0) == without
    changed = {name: value - without[name] for name, value in rewards(0.5).items()}
    assert {name for name, difference in changed.items() if difference} == {
        "flag without a reason",
        "pass without a reason",
    }
    assert changed["flag without a reason"] == changed["pass without a reason"] == -0.5
    assert unsound_line(*CRITIQUES["pass without a reason"]) is not None


@given(st.lists(st.sampled_from([n for n in CRITIQUES if n != "no verdict"]), min_size=1), st.floats(0, 2))
def test_mean_and_variance_are_those_of_fapo_one_level_higher(names: list[str], penalty: float) -> None:
    scorer = meta_scorer(penalty)(CONFIG, [FLAWED, SOUND])
    scorer = MetaScorer(GenRMOutcomeReward(), scorer.template, scorer.labelled, penalty=penalty)
    found = [scorer.score(Rollout(s.problem, text)).reward.value for s, text in map(CRITIQUES.get, names)]
    alpha = sum(name.startswith("sound") for name in names) / len(names)
    beta = sum(name.startswith("wrong") for name in names) / len(names)
    assert np.mean(found) == pytest.approx(fapo_mean(alpha, beta, penalty), abs=1e-9)
    assert np.var(found) == pytest.approx(fapo_variance(alpha, beta, penalty), abs=1e-9)
