"""Located credit, the corrected reward and the penalty that follows rho: closed forms and invariants."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.config import RewardConfig
from fapo.credit import located_advantages, num_tokens_before
from fapo.miniature.models import tokenizer
from fapo.rewards import corrected_reward, fapo_reward, following_penalty
from fapo.scoring import PolicyScorer, Scored, advantages_of
from fapo.types import Problem, Reward, Rollout, Verdict

TOK = tokenizer()
PROBLEM = Problem("p", "start 17, add 5; mod 5", "2", "")
rates = st.tuples(st.floats(0.05, 1), st.floats(0, 0.95)).filter(lambda pair: pair[0] > pair[1] + 0.01)


@given(st.floats(0, 3), rates)
def test_the_corrected_reward_is_right_on_average(penalty: float, judge: tuple[float, float]) -> None:
    recall, alarms = judge
    flagged, cleared = (corrected_reward(True, flawed, penalty, recall, alarms) for flawed in (True, False))
    assert recall * flagged + (1 - recall) * cleared == pytest.approx(1 - penalty, abs=1e-6)
    assert alarms * flagged + (1 - alarms) * cleared == pytest.approx(1, abs=1e-6)


@given(st.booleans(), st.none() | st.booleans(), st.floats(0, 3))
def test_a_judge_without_errors_needs_no_correction(correct: bool, flawed: bool | None, penalty: float) -> None:
    assert corrected_reward(correct, flawed, penalty, 1.0, 0.0) == fapo_reward(correct, flawed, penalty)


def test_a_judge_that_says_nothing_cannot_be_corrected() -> None:
    with pytest.raises(ValueError, match="more of the flawed than of the sound"):
        corrected_reward(True, True, 1.0, 0.3, 0.3)


@given(st.integers(0, 9), st.integers(0, 9))
def test_a_penalty_that_follows_rho_changes_sign_where_lambda_1_does(sound: int, wrong: int) -> None:
    penalty = following_penalty(sound, wrong)
    assert 0 <= penalty <= 2
    others = (sound - wrong) / max(sound + wrong, 1)  # the mean of the rest of the group
    assert np.sign(round((1 - penalty) - others, 9)) == np.sign(wrong - sound)


def scored_group(rng: random.Random, size: int) -> list[Scored]:
    out = []
    for _ in range(size):
        kind = rng.choice(("sound", "flawed", "wrong", "unscored"))
        value = {"sound": 1.0, "flawed": 0.0, "wrong": -1.0, "unscored": None}[kind]
        verdict = Verdict("ok", error_step=0 if kind == "flawed" else None) if kind in ("sound", "flawed") else None
        out.append(Scored(Rollout(PROBLEM, "", 5), kind != "wrong", verdict, Reward(value, {})))
    return out


@given(st.integers(0, 10**6))
def test_what_comes_before_the_flaw_is_credited_as_right(seed: int) -> None:
    rng = random.Random(seed)
    scored = scored_group(rng, 8) + scored_group(rng, 8)
    advantages, before = advantages_of(scored, 8), [rng.randint(0, 5) for _ in scored]
    located = located_advantages(scored, advantages, before, 5, 8)
    assert located.shape == (16, 5)
    for i, one in enumerate(scored):
        group = range(i - i % 8, i - i % 8 + 8)
        right = [advantages[j] for j in group if scored[j].correct and scored[j].flawed is False]
        flawed = bool(one.correct and one.flawed)
        assert (located[i, before[i] if flawed else 0 :] == advantages[i]).all()
        if flawed and right:
            assert located[i, : before[i]] == pytest.approx(right[0])
        if flawed and not right and advantages[list(group)].any():
            assert (located[i, : before[i]] > advantages[i]).all()


@pytest.mark.parametrize(("step", "num"), [(0, 0), (1, 6), (2, 12), (3, 13)])
def test_where_the_first_wrong_step_begins(step: int, num: int) -> None:
    response = "17+5=22\n22*2=49\n9\n\\boxed{4}"
    tokens = TOK(response)["input_ids"] + [TOK.eos_token_id]
    found = num_tokens_before(TOK, tokens, response, step)
    steps = ["", "17+5=22\n", "17+5=22\n22*2=49\n", "17+5=22\n22*2=49\n9\n"]
    assert TOK.decode(tokens[:found]) == steps[step]
    assert found <= num + 1


def test_lambda_follows_the_rho_of_each_question() -> None:
    async def judge(rollouts: list[Rollout]) -> list[Verdict]:
        return [Verdict("ok", error_step=0 if "flaw" in r.response else None) for r in rollouts]

    def rollouts(problem: Problem, *texts: str) -> list[Rollout]:
        return [Rollout(problem, text, 5) for text in texts]

    other = Problem("q", PROBLEM.text, "2", "")
    right, flawed, wrong = "\\boxed{2}", "flaw\n\n\\boxed{2}", "\\boxed{3}"
    scorer = PolicyScorer(RewardConfig("fapo", follow_rho=True), judge)  # type: ignore[arg-type]
    mixed = rollouts(PROBLEM, right, right, right, flawed, wrong) + rollouts(other, flawed, wrong)
    rewards = [s.reward.value for s in asyncio.run(scorer(mixed))]
    assert rewards == pytest.approx([1, 1, 1, 1 - 2 * 3 / 4, -1, 1, -1])
