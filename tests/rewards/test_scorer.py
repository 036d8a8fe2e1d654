from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import numpy as np
import pytest

from fapo.config.reader import from_dict
from fapo.config.schema import (
    FapoReward,
    GenRMOutcomeReward,
    GenRMStepReward,
    OutcomeReward,
    RewardConfig,
    StepRatioReward,
)
from fapo.errors import ConfigError, JudgeDownError, UnscoredError
from fapo.judge.genrm import GenRM
from fapo.judge.quality import judge_quality
from fapo.judge.template import load_template
from fapo.rewards.advantages import group_advantages
from fapo.rewards.critique_scorer import CritiqueScorer
from fapo.rewards.from_config import make_scorer
from fapo.rewards.scorer import PolicyScorer, batch_advantages
from fapo.training.step_metrics import advantage_metrics, flawed_rho_metrics, genrm_metrics, policy_metrics
from fapo.types import (
    Completion,
    GroundTruth,
    LabelledSolution,
    Message,
    Problem,
    Reward,
    Rollout,
    ScoredRollout,
    Verdict,
)

SOUND = Verdict.from_step(None, "fine")
FLAWED = Verdict.from_step(1, critique="step 1")
UNPARSABLE = Verdict("unparsable", critique="hm", reason="no \\boxed{}")
FAILED = Verdict("failed", reason="no answer within 5 s")
SOMEWHERE = Verdict("ok", flawed=True, critique="\\boxed{yes}")
RIGHT, WRONG = "1+1=2\n2+2=4\n\\boxed{4}", "1+1=2\n2+2=5\n\\boxed{5}"
PROBLEM = Problem("p", "What is 1+1+2?", "4")


def rollout(response: str = RIGHT, num_tokens: int = 10, name: str = "p") -> Rollout:
    return Rollout(Problem(name, PROBLEM.text, "4"), response, num_tokens)


class FakeJudge:
    """Gives the same verdict to all, and remembers whom it was asked about."""

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
    found = score(config, FakeJudge(verdict), RIGHT, WRONG, judge_all=kind == "step_ratio")
    assert [s.correct for s in found] == [True, False]
    assert [s.reward.value for s in found] == pytest.approx([right, wrong])
    assert [sum(s.reward.parts.values()) for s in found] == pytest.approx([right, wrong])


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
    """Fails on the first so many of each batch."""

    def __init__(self, num_failed: int) -> None:
        self.num_failed = num_failed

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Verdict]:
        return [FAILED if i < self.num_failed else SOUND for i in range(len(rollouts))]


@pytest.mark.parametrize(
    ("num_failed", "sizes", "share", "stops"),
    [
        (8, [8], 0.5, True),
        (5, [8], 0.5, True),
        (4, [8], 0.5, False),  # not more than the share
        (7, [7], 0.5, False),  # too few to tell
        (7, [7, 7], 0.5, True),  # together they are not
        (1, [8], 0.0, True),
        (0, [8], 0.0, False),
        (9, [9, 9], 1.0, False),  # switched off
        (3, [8], 0.4, False),
        (3, [8, 3], 0.4, True),  # six of the last eleven
    ],
)
def test_too_many_failures_stop_the_run(num_failed: int, sizes: list[int], share: float, stops: bool) -> None:
    scorer = PolicyScorer(FapoReward(), FailingJudge(num_failed), max_failure_rate=share)

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


# --- critiques --------------------------------------------------------------------------------------------------------

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


def test_the_step_ratio_needs_a_judge_that_names_the_step() -> None:
    judge = {"kind": "served", "model": "m", "urls": ["http://127.0.0.1:1/v1"], "template": "yes_no"}
    table = {
        "name": "x",
        "task": "policy",
        "model": {"path": "m"},
        "data": {"train": "x.jsonl"},
        "rollout": {"max_tokens": 96},
        "optim": {"steps": 20, "learning_rate": 1e-4},
        "reward": {"kind": "step_ratio"},
        "judge": judge,
    }
    with pytest.raises(ConfigError, match=r"judge\.template: 'yes_no' asks yes or no, .* step_ratio"):
        make_scorer(from_dict(table))


def test_a_flag_without_a_step_has_no_step_ratio() -> None:
    (fapo,) = score(FapoReward(), FakeJudge(SOMEWHERE), RIGHT)
    assert (fapo.flawed, fapo.reward.value) == (True, 0.0)
    found = score(StepRatioReward(), FakeJudge(SOMEWHERE), RIGHT, WRONG, judge_all=True)
    assert [s.reward.value for s in found] == [None, None]
    with pytest.raises(UnscoredError, match="names no step"):
        score(StepRatioReward(on_unscored="raise"), FakeJudge(SOMEWHERE), RIGHT)


def test_overlong_critiques_earn_less() -> None:
    scorer = CritiqueScorer(GenRMStepReward(overlong_buffer=10), load_template("locate"), LABELLED, 20)
    (found,) = asyncio.run(scorer([rollout("\\boxed{3}", 15, "flawed")]))
    assert found.reward.parts == {"outcome": 1.0, "process": -0.5, "overlong": -0.5}


# --- measurements -----------------------------------------------------------------------------------------------------


def scored(
    correct: bool, verdict: Verdict | None, value: float | None, num_tokens: int = 10, cut=False
) -> ScoredRollout:
    return ScoredRollout(Rollout(PROBLEM, "", num_tokens, cut), correct, verdict, Reward(value))


TABLE: list[tuple[ScoredRollout, GroundTruth | None]] = [
    # correct, verdict, reward, tokens                             truth
    (scored(True, SOUND, 1.0, 10), GroundTruth(None, None)),  # rightly passed
    (scored(True, SOUND, 1.0, 20), GroundTruth(2, "slip")),  # missed
    (scored(True, FLAWED, 0.0, 30), GroundTruth(1, "skip")),  # rightly flagged, right step
    (scored(True, FLAWED, 0.0, 40), GroundTruth(0, "guess")),  # rightly flagged, wrong step
    (scored(True, FLAWED, 0.0, 50), GroundTruth(None, None)),  # false alarm
    (scored(True, FAILED, None, 60), GroundTruth(None, None)),  # no verdict
    (scored(False, None, -1.0, 70, cut=True), GroundTruth(0, "slip")),
    (scored(False, None, -1.0, 80, cut=True), GroundTruth(0, "slip")),
]


def test_policy_metrics_by_hand() -> None:
    found = policy_metrics([s for s, _ in TABLE], [t for _, t in TABLE])
    assert found == pytest.approx(
        {
            "rollout/accuracy": 6 / 8,
            "rollout/length": 45.0,
            "rollout/truncated_rate": 2 / 8,
            "rollout/unscored_rate": 1 / 8,
            "rollout/fp_ratio": 3 / 5,
            "rollout/rho": 2 / 2,
            "judge/tokens": 0.0,
            "rollout/true_fp_ratio": 3 / 6,
            "rollout/reliable_accuracy": 3 / 8,
            "rollout/true_rho": 3 / 2,
            "judge/precision": 2 / 4,  # the failed one counts as a false alarm
            "judge/recall": 2 / 3,
            "judge/f1": 4 / 7,
            "judge/location": 1 / 2,
            "judge/invalid_rate": 1 / 6,
        }
    )


def test_what_is_not_known_is_not_measured() -> None:
    rows = [s for s, _ in TABLE]
    without_truth = policy_metrics(rows, [None] * len(rows))
    assert not [key for key in without_truth if "true" in key or key in ("judge/f1", "rollout/reliable_accuracy")]
    assert without_truth["rollout/fp_ratio"] == 3 / 5
    without_judge = policy_metrics(
        [scored(True, None, 1.0), scored(False, None, -1.0)], [GroundTruth(1, "slip"), GroundTruth(0, "slip")]
    )
    assert "rollout/fp_ratio" not in without_judge
    assert not [key for key in without_judge if key.startswith("judge/")]
    assert without_judge["rollout/true_fp_ratio"] == 1.0
    nothing_right = policy_metrics([scored(False, None, -1.0)], [GroundTruth(0, "slip")])
    assert nothing_right["rollout/accuracy"] == 0.0
    assert "rollout/fp_ratio" not in nothing_right


def test_flags_without_a_step_have_no_location() -> None:
    quality = judge_quality([SOMEWHERE, SOMEWHERE, SOUND], [0, 1, None])
    assert (quality["precision"], quality["recall"]) == (1.0, 1.0)
    assert math.isnan(quality["location"])
    assert judge_quality([SOMEWHERE, FLAWED], [0, 1])["location"] == 1.0


def test_an_unscored_rollout_is_not_taken_for_a_sound_one() -> None:
    found = policy_metrics([scored(True, UNPARSABLE, None)] * 3 + [scored(True, FLAWED, 0.0)], [None] * 4)
    assert found["rollout/fp_ratio"] == 1.0
    assert found["rollout/unscored_rate"] == 3 / 4


def test_advantages_are_those_of_the_rewards_module() -> None:
    rows = [s for s, _ in TABLE]
    values = [[np.nan if s.reward.value is None else s.reward.value for s in rows[i : i + 4]] for i in (0, 4)]
    expected = group_advantages(values)
    assert batch_advantages(rows, 4) == pytest.approx(expected.reshape(-1))
    assert batch_advantages(rows, 4)[5] == 0.0, "unscored"
    by_hand = [(1 - 0.5), (1 - 0.5), (0 - 0.5), (0 - 0.5)]
    assert expected[0] == pytest.approx(np.array(by_hand) / (np.std(by_hand, ddof=1) + 1e-4))


def test_mean_advantages_by_verdict_and_by_truth() -> None:
    rows, truths = [s for s, _ in TABLE], [t for _, t in TABLE]
    a = batch_advantages(rows, 4)
    found = advantage_metrics(rows, 4, truths)
    assert found == pytest.approx(
        {
            "advantage/fully_correct": a[[0, 1]].mean(),
            "advantage/flawed": a[[2, 3, 4]].mean(),
            "advantage/wrong": a[[6, 7]].mean(),
            "advantage/true_fully_correct": a[[0, 4, 5]].mean(),
            "advantage/true_flawed": a[[1, 2, 3]].mean(),
            "advantage/true_wrong": a[[6, 7]].mean(),
        }
    )
    assert not [key for key in advantage_metrics(rows, 4) if "true" in key]
    assert not [key for key in advantage_metrics(rows, 4, [None] * 8) if "true" in key]


def test_rho_of_the_groups_that_have_flawed_positives() -> None:
    mixed = [
        scored(True, SOUND, 1.0),
        scored(True, FLAWED, 0.0),
        scored(False, None, -1.0),
        scored(False, FLAWED, -1.0),
    ]
    solved = [scored(True, SOUND, 1.0)] * 4
    unscored = [scored(True, FAILED, None), *mixed[:2], scored(True, FLAWED, 0.0)]
    wrong, sound, flaw = GroundTruth(0, "slip"), GroundTruth(None), GroundTruth(1, "slip")
    truths = [sound, sound, wrong, wrong, *[flaw, sound, sound, sound], *[flaw, flaw, sound, sound]]
    found = flawed_rho_metrics(mixed + solved + unscored, 4, truths)
    # by verdict: (1 * 1 + 2 * 1) / (1 * 2 + 2 * 0); by truth no group with flawed positives has a wrong rollout
    assert found == {"rollout/flawed_rho": 3 / 2, "rollout/true_flawed_rho": math.inf}
    assert math.isnan(flawed_rho_metrics(solved, 4, [None] * 4)["rollout/flawed_rho"]), "nothing flawed"
    assert flawed_rho_metrics(mixed, 4, [None] * 4).keys() == {"rollout/flawed_rho"}
    assert flawed_rho_metrics([scored(True, None, 1.0), scored(False, None, -1.0)], 2, [None] * 2) == {}, "no judge"


def test_quality_of_a_judge_without_flawed_rows_is_unknown() -> None:
    found = judge_quality([SOUND, FLAWED], [None, None])
    assert (found["precision"], found["invalid_rate"]) == (0.0, 0.0)
    assert all(math.isnan(found[name]) for name in ("recall", "f1", "location"))


def test_genrm_metrics_by_hand() -> None:
    rows = [scored(True, FLAWED, 1.0, 10), scored(False, SOUND, -1.0, 20), scored(False, UNPARSABLE, -1.0, 60, True)]
    assert genrm_metrics(rows, [1, 2, None]) == pytest.approx(
        {"precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "location": 1.0, "invalid_rate": 1 / 3}
        | {"tokens": 30.0, "truncated_rate": 1 / 3}
    )
