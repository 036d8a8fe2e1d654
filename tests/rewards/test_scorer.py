"""The scorer of policies: reward of each kind, rollouts without a verdict, failing judges, overlong responses."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from fapo.config.schema import FapoReward, OutcomeReward, RewardConfig, StepRatioReward
from fapo.errors import JudgeDownError, UnscoredError
from fapo.judge.genrm import GenRM
from fapo.judge.template import load_template
from fapo.rewards.scorer import PolicyScorer
from fapo.types import Completion, Given, Message, Problem, Reward, Rollout, ScoredRollout, Verdict

SOUND = Verdict.from_step(None, "fine")
FLAWED = Verdict.from_step(1, critique="step 1")
UNPARSABLE = Verdict("unparsable", critique="hm", reason="no boxed step")
FAILED = Verdict("failed", reason="no answer within 5 s")
SOMEWHERE = Verdict("ok", flawed=True, critique="\\boxed{yes}")
RIGHT, WRONG = "1+1=2\n2+2=4\n\\boxed{4}", "1+1=2\n2+2=5\n\\boxed{5}"
PROBLEM = Problem("p", "What is 1+1+2?", "4")


def rollout(response: str = RIGHT, num_tokens: int = 10, name: str = "p") -> Rollout:
    return Rollout(Problem(name, PROBLEM.text, "4"), response, num_tokens)


class FakeJudge:
    """A judge that gives every rollout the same verdict, and keeps the rollouts."""

    def __init__(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.asked: list[Rollout] = []

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Verdict]:
        self.asked.extend(rollouts)
        return [self.verdict] * len(rollouts)


def score(config: RewardConfig, judge: FakeJudge | None, *responses: str, **options) -> list[ScoredRollout]:
    return asyncio.run(PolicyScorer(config, judge, **options)([rollout(r) for r in responses]))


REWARDS = [
    # kind, penalty, verdict, reward of a right rollout, of a wrong one (which only the step ratio shows the judge)
    ("outcome", 1.0, SOUND, 1.0, -1.0),
    ("outcome", 1.0, FLAWED, 1.0, -1.0),
    ("outcome", 1.0, FAILED, 1.0, -1.0),
    ("fapo", 1.0, SOUND, 1.0, -1.0),
    ("fapo", 1.0, FLAWED, 0.0, -1.0),
    ("fapo", 2.0, FLAWED, -1.0, -1.0),
    ("fapo", 0.0, FLAWED, 1.0, -1.0),
    ("step_ratio", 1.0, SOUND, 2.0, 0.0),
    ("step_ratio", 1.0, FLAWED, 1 + 1 / 3, -1 + 1 / 3),
]


@pytest.mark.parametrize("on_unscored", ["mask", "correctness_only", "raise"])
@pytest.mark.parametrize(("kind", "penalty", "verdict", "right", "wrong"), REWARDS)
def test_reward_of_each_kind(kind, penalty, verdict, right, wrong, on_unscored) -> None:
    kinds = {
        "outcome": OutcomeReward(),
        "fapo": FapoReward(penalty=penalty, on_unscored=on_unscored),
        "step_ratio": StepRatioReward(on_unscored=on_unscored),
    }
    config = kinds[kind]
    found = score(config, FakeJudge(verdict), RIGHT, WRONG, judge_all=kind == "step_ratio", steps="lines")
    assert [s.correct for s in found] == [True, False]
    assert [s.reward.value for s in found] == pytest.approx([right, wrong])
    assert [sum(s.reward.parts.values()) for s in found] == pytest.approx([right, wrong])


@pytest.mark.parametrize(("error_step", "reward"), [(0, 1.0), (2, 1.5), (None, 2.0)])
def test_given_steps_earn_no_step_ratio(error_step: int | None, reward: float) -> None:
    scorer = PolicyScorer(StepRatioReward(), FakeJudge(Verdict.from_step(error_step)), judge_all=True)
    rollout = Rollout(PROBLEM, "\\boxed{4}", earlier_turns=("1+1=2", Given("2\n\n2")))
    (found,) = asyncio.run(scorer([rollout]))
    assert found.reward.value == reward


@pytest.mark.parametrize("verdict", [UNPARSABLE, FAILED], ids=lambda v: v.status)
@pytest.mark.parametrize("kind", [FapoReward, StepRatioReward])
@pytest.mark.parametrize("on_unscored", ["mask", "correctness_only", "raise"])
def test_without_a_verdict_the_setting_decides(kind, on_unscored, verdict) -> None:
    config = kind(on_unscored=on_unscored)

    def run() -> ScoredRollout:
        return score(config, FakeJudge(verdict), RIGHT, judge_all=kind == "step_ratio")[0]

    if on_unscored == "raise":
        with pytest.raises(UnscoredError, match=r"problem p: .*; set reward.on_unscored") as caught:
            run()
        assert verdict.reason in str(caught.value)
        return
    found = run()
    assert found.verdict == verdict
    assert found.flawed is None
    if on_unscored == "mask":
        assert found.reward == Reward(None, {"outcome": 1.0})
    else:
        assert found.reward.value == 1.0
        assert found.reward.parts == {"outcome": 1.0, "flaw": 0.0, "overlong": 0.0}


@pytest.mark.parametrize("verdict", [UNPARSABLE, FAILED], ids=lambda v: v.status)
def test_a_wrong_rollout_needs_no_verdict(verdict) -> None:
    judge = FakeJudge(verdict)
    (found,) = score(FapoReward(on_unscored="raise"), judge, WRONG)
    assert (found.reward.value, found.verdict, judge.asked) == (-1.0, None, [])


def test_fapo_without_a_judge_has_no_reward_for_right_rollouts() -> None:
    found = score(FapoReward(), None, RIGHT, WRONG)
    assert [s.reward.value for s in found] == [None, -1.0]


def test_only_right_rollouts_are_judged_and_each_gets_its_own_verdict() -> None:
    class ByProblem:
        asked: list[str]

        async def __call__(self, rollouts):
            self.asked = [r.problem.id for r in rollouts]
            return [FLAWED if r.problem.id == "b" else SOUND for r in rollouts]

    judge = ByProblem()
    rows = [rollout(WRONG, name="a"), rollout(name="b"), rollout(WRONG, name="c"), rollout(name="d")]
    found = asyncio.run(PolicyScorer(FapoReward(), judge)(rows))
    assert judge.asked == ["b", "d"]
    assert [s.reward.value for s in found] == [-1.0, 0.0, -1.0, 1.0]
    assert [s.rollout for s in found] == rows
    asyncio.run(PolicyScorer(FapoReward(), judge, judge_all=True)(rows))
    assert judge.asked == ["a", "b", "c", "d"]


def test_a_judge_of_the_baseline_only_measures() -> None:
    found = score(OutcomeReward(), FakeJudge(FLAWED), RIGHT)
    assert (found[0].flawed, found[0].reward.value) == (True, 1.0)


class FailingJudge:
    """A judge that fails on the first `num_failed` rollouts of each batch."""

    def __init__(self, num_failed: int) -> None:
        self.num_failed = num_failed

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Verdict]:
        return [FAILED if i < self.num_failed else SOUND for i in range(len(rollouts))]


@pytest.mark.parametrize(
    ("num_failed", "sizes", "rate", "stops"),
    [
        (8, [8], 0.5, True),
        (5, [8], 0.5, True),
        (4, [8], 0.5, False),  # not above the rate
        (7, [7], 0.5, False),  # too few results
        (7, [7, 7], 0.5, True),  # enough in two batches
        (1, [8], 0.0, True),
        (0, [8], 0.0, False),
        (9, [9, 9], 1.0, False),  # switched off
        (3, [8], 0.4, False),
        (3, [8, 3], 0.4, True),  # six of the last eleven
    ],
)
def test_too_many_failures_stop_the_run(num_failed: int, sizes: list[int], rate: float, stops: bool) -> None:
    scorer = PolicyScorer(FapoReward(), FailingJudge(num_failed), max_failure_rate=rate)

    def run() -> None:
        for size in sizes:
            asyncio.run(scorer([rollout() for _ in range(size)]))

    if stops:
        with pytest.raises(
            JudgeDownError,
            match=r"judge is down: .* failed, \d+ of them with: no answer within 5 s. .*max_failure_rate",
        ):
            run()
        return
    run()
    assert asyncio.run(scorer([])) == []


@pytest.mark.parametrize(
    ("num_tokens", "penalty"), [(0, 0.0), (60, 0.0), (70, -0.25), (80, -0.5), (100, -1.0), (120, -1.0)]
)
def test_overlong_responses_earn_less(num_tokens: int, penalty: float) -> None:
    scorer = PolicyScorer(FapoReward(overlong_buffer=40), FakeJudge(FLAWED), max_tokens=100)
    right, wrong = asyncio.run(scorer([rollout(RIGHT, num_tokens), rollout(WRONG, num_tokens)]))
    assert right.reward.parts == {"outcome": 1.0, "flaw": -1.0, "overlong": pytest.approx(penalty)}
    assert right.reward.value == pytest.approx(0.0 + penalty)
    assert wrong.reward.value == pytest.approx(-1.0 + penalty)


def test_overlong_shaping_gives_no_reward_to_the_unscored() -> None:
    scorer = PolicyScorer(FapoReward(overlong_buffer=40), FakeJudge(FAILED), max_tokens=100)
    (found,) = asyncio.run(scorer([rollout(RIGHT, 100)]))
    assert found.reward.value is None


@pytest.mark.parametrize(
    "reply", ["", "no box", "\\boxed{7}", "\\boxed{x}", "\\boxed{}", "\\boxed{-2}", "\\boxed{0.0}"]
)
def test_garbage_of_a_real_judge_is_never_a_reward(reply: str) -> None:
    async def complete(conversations: Sequence[list[Message]]) -> list[Completion]:
        return [Completion(reply)] * len(conversations)

    found = score(FapoReward(), GenRM(load_template("locate"), complete), RIGHT)
    assert (found[0].verdict.status, found[0].reward.value) == ("unparsable", None)


@pytest.mark.parametrize("on_unscored", ["mask", "correctness_only", "raise"])
def test_an_answer_without_reasoning_has_the_lowest_step_ratio(on_unscored: Any) -> None:
    async def complete(conversations: Sequence[list[Message]]) -> list[Completion]:
        raise AssertionError("the judge reads no such answer")

    genrm = GenRM(load_template("locate"), complete, min_words=3)
    scorer = PolicyScorer(StepRatioReward(on_unscored=on_unscored), genrm, judge_all=True)
    right, wrong = asyncio.run(scorer([rollout("\\boxed{4}"), rollout("\\boxed{5}")]))
    assert (right.flawed, right.reward.value, wrong.reward.value) == (True, 1.0, -1.0)


def test_a_flag_without_a_step_has_no_step_ratio() -> None:
    (fapo,) = score(FapoReward(), FakeJudge(SOMEWHERE), RIGHT)
    assert (fapo.flawed, fapo.reward.value) == (True, 0.0)
    found = score(StepRatioReward(), FakeJudge(SOMEWHERE), RIGHT, WRONG, judge_all=True)
    assert [s.reward.value for s in found] == [None, None]
    with pytest.raises(UnscoredError, match="names no step"):
        score(StepRatioReward(on_unscored="raise"), FakeJudge(SOMEWHERE), RIGHT)
