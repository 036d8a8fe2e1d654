"""The scorer of critiques."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from fapo.config.schema import GenRMOutcomeReward, GenRMReward, GenRMStepReward
from fapo.errors import ConfigError
from fapo.judge.template import load_template
from fapo.judge.verdicts import CUT_OFF
from fapo.rewards.critique_scorer import CritiqueScorer
from fapo.types import LabelledSolution, Problem, Rollout

RIGHT, WRONG = "1+1=2\n2+2=4\n\\boxed{4}", "1+1=2\n2+2=5\n\\boxed{5}"
PROBLEM = Problem("p", "What is 1+1+2?", "4")


def rollout(response: str = RIGHT, num_tokens: int = 10, name: str = "p") -> Rollout:
    return Rollout(Problem(name, PROBLEM.text, "4"), response, num_tokens)


STEPS = ("1+1=2", "2+2=5", "\\boxed{4}", "so 4")
LABELS = {"flawed": 1, "sound": None}
LABELLED = {name: LabelledSolution(Problem(name, "?", "4"), STEPS, label, True) for name, label in LABELS.items()}
CRITIQUES = [
    # label, critique, step-wise reward, outcome-only reward
    ("flawed", "\\boxed{1}", 1.0, 1.0),
    ("flawed", "\\boxed{3}", 0.5, 1.0),
    ("flawed", "\\boxed{0}", 0.75, 1.0),
    ("flawed", "\\boxed{-1}", -1.0, -1.0),
    ("flawed", "\\boxed{4}", -1.0, -1.0),
    ("flawed", "garbage", -1.0, -1.0),
    ("sound", "\\boxed{-1}", 1.0, 1.0),
    ("sound", "\\boxed{2}", -1.0, -1.0),
    ("sound", "", -1.0, -1.0),
]


@pytest.mark.parametrize(("label", "text", "step_wise", "outcome"), CRITIQUES)
def test_reward_of_a_critique(label: str, text: str, step_wise: float, outcome: float) -> None:
    for reward, value in ((GenRMStepReward(), step_wise), (GenRMOutcomeReward(), outcome)):
        scorer = CritiqueScorer(reward, load_template("locate"), LABELLED)
        (found,) = asyncio.run(scorer([rollout(text, 7, label)]))
        assert found.reward.value == pytest.approx(value)
        assert sum(found.reward.parts.values()) == pytest.approx(value)
        assert found.correct == (outcome > 0)
        assert found.verdict.num_tokens == 7
        assert ("process" in found.reward.parts) == (reward.kind == "genrm_step")


@pytest.mark.parametrize("reward", [GenRMStepReward(), GenRMOutcomeReward()], ids=["step", "outcome"])
def test_a_critique_that_was_cut_off_has_no_verdict_whatever_it_holds(reward: GenRMReward) -> None:
    scorer = CritiqueScorer(reward, load_template("locate"), LABELLED)
    cut_off = replace(rollout("\\boxed{1} is wrong, unless", 7, "flawed"), truncated=True)
    (found,) = asyncio.run(scorer([cut_off]))
    assert (found.verdict.status, found.verdict.reason, found.verdict.flawed) == ("unparsable", CUT_OFF, None)
    assert (found.reward.value, found.correct, found.verdict.num_tokens) == (-1.0, False, 7)
    assert found.verdict.critique == cut_off.response


@pytest.mark.parametrize(
    ("label", "text", "value"),
    [
        ("flawed", "\\boxed{yes}", 1.0),
        ("flawed", "\\boxed{no}", -1.0),
        ("flawed", "\\boxed{1}", -1.0),
        ("sound", "\\boxed{no}", 1.0),
        ("sound", "\\boxed{yes}", -1.0),
    ],
)
def test_a_yes_no_judge_is_read_by_its_template(label: str, text: str, value: float) -> None:
    scorer = CritiqueScorer(GenRMOutcomeReward(), load_template("yes_no"), LABELLED)
    assert asyncio.run(scorer([rollout(text, name=label)]))[0].reward.value == value


def test_the_step_reward_needs_a_template_that_asks_for_the_step() -> None:
    with pytest.raises(ConfigError, match=r"yes_no: the template asks yes or no, .*genrm_outcome"):
        CritiqueScorer(GenRMStepReward(), load_template("yes_no"), LABELLED)


def test_overlong_critiques_earn_less() -> None:
    scorer = CritiqueScorer(GenRMStepReward(overlong_buffer=10), load_template("locate"), LABELLED, 20)
    (found,) = asyncio.run(scorer([rollout("\\boxed{3}", 15, "flawed")]))
    assert found.reward.parts == {"outcome": 1.0, "process": -0.5, "overlong": -0.5}
