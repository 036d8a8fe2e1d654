"""Metrics of a step, by hand."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np
import pytest

from fapo.config.schema import FapoReward
from fapo.evaluation.judge_benchmarks.score import score_flawed_positive, score_process
from fapo.rewards.advantages import group_advantages
from fapo.rewards.scorer import batch_advantages
from fapo.training.step_metrics import advantage_metrics, flawed_rho_metrics, genrm_metrics, policy_metrics
from fapo.types import GroundTruth, LabelledSolution, Problem, Reward, Rollout, ScoredRollout, Verdict

SOUND = Verdict.from_step(None, "fine")
FLAWED = Verdict.from_step(1, critique="step 1")
UNPARSABLE = Verdict("unparsable", critique="hm", reason="no boxed step")
FAILED = Verdict("failed", reason="no answer within 5 s")
PROBLEM = Problem("p", "What is 1+1+2?", "4")


GROUPS = [*"aaaabbbb"]
"""Name of the group of each row of TABLE."""


def scored(
    correct: bool, verdict: Verdict | None, value: float | None, num_tokens: int = 10, cut=False
) -> ScoredRollout:
    return ScoredRollout(Rollout(PROBLEM, "", num_tokens, cut), correct, verdict, Reward(value))


TABLE: list[tuple[ScoredRollout, GroundTruth | None]] = [
    # correct, verdict, reward, tokens                             truth
    (scored(True, SOUND, 1.0, 10), GroundTruth(None, None)),  # correctly passed
    (scored(True, SOUND, 1.0, 20), GroundTruth(2, "slip")),  # missed
    (scored(True, FLAWED, 0.0, 30), GroundTruth(1, "skip")),  # correctly flagged, right step
    (scored(True, FLAWED, 0.0, 40), GroundTruth(0, "guess")),  # correctly flagged, wrong step
    (scored(True, FLAWED, 0.0, 50), GroundTruth(None, None)),  # false positive
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
            "judge/precision": 2 / 4,  # the failed one counts as a false positive
            "judge/recall": 2 / 3,
            "judge/f1": 4 / 7,
            "judge/location": 1 / 2,
            "judge/invalid_rate": 1 / 6,
        }
    )


def test_an_error_of_the_checker_is_counted_and_is_no_wrong_answer() -> None:
    rows = [scored(True, SOUND, 1.0), scored(True, SOUND, 1.0), scored(False, None, -1.0)]
    failed = replace(scored(False, None, None), check_error="no result within 300 s")
    assert "rollout/checker_error_rate" not in policy_metrics(rows, [None] * 3)
    found = policy_metrics([*rows, failed], [None] * 4)
    assert found["rollout/checker_error_rate"] == found["rollout/unscored_rate"] == 1 / 4
    assert (found["rollout/rho"], found["rollout/accuracy"]) == (2 / 1, 2 / 4)
    advantages = advantage_metrics([*rows, failed], batch_advantages([*rows, failed], [0] * 4, None), [None] * 4)
    assert advantages["advantage/wrong"] < 0 < advantages["advantage/fully_correct"]


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


def test_an_unscored_rollout_is_not_taken_for_a_sound_one() -> None:
    found = policy_metrics([scored(True, UNPARSABLE, None)] * 3 + [scored(True, FLAWED, 0.0)], [None] * 4)
    assert found["rollout/fp_ratio"] == 1.0
    assert found["rollout/unscored_rate"] == 3 / 4


def test_advantages_are_those_of_the_rewards_module() -> None:
    rows = [s for s, _ in TABLE]
    values = [[np.nan if s.reward.value is None else s.reward.value for s in rows[i : i + 4]] for i in (0, 4)]
    expected = group_advantages(values)
    found = batch_advantages(rows, GROUPS, FapoReward())
    assert found == pytest.approx(expected.reshape(-1))
    assert found[5] == 0.0, "unscored"
    by_hand = [(1 - 0.5), (1 - 0.5), (0 - 0.5), (0 - 0.5)]
    assert expected[0] == pytest.approx(np.array(by_hand) / (np.std(by_hand, ddof=1) + 1e-4))


def test_mean_advantages_by_verdict_and_by_truth() -> None:
    rows, truths = [s for s, _ in TABLE], [t for _, t in TABLE]
    a = batch_advantages(rows, GROUPS, None)
    found = advantage_metrics(rows, a, truths)
    assert found == pytest.approx(
        {
            "advantage/fully_correct": a[[0, 1]].mean(),
            "advantage/flawed": a[[2, 3, 4]].mean(),
            "advantage/wrong": a[[6, 7]].mean(),
            "advantage/true_fully_correct": a[[0, 4, 5]].mean(),
            "advantage/true_flawed": a[[1, 2, 3]].mean(),
            "advantage/true_wrong": a[[6, 7]].mean(),
            "advantage/flawed_fraction": a[a > 0][np.isin(np.flatnonzero(a > 0), [2, 3, 4])].sum() / a[a > 0].sum(),
            "advantage/true_flawed_fraction": a[1] / a[a > 0].sum(),
        }
    )
    assert not [key for key in advantage_metrics(rows, a) if "true" in key]
    assert not [key for key in advantage_metrics(rows, a, [None] * 8) if "true" in key]


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


def test_genrm_metrics_by_hand() -> None:
    rows = [scored(True, FLAWED, 1.0, 10), scored(False, SOUND, -1.0, 20), scored(False, UNPARSABLE, -1.0, 60, True)]
    truths = [GroundTruth(label, answer_correct=True) for label in (1, 2, None)]
    of_positives = {"precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "location": 1.0, "invalid_rate": 1 / 3}
    assert genrm_metrics(rows, truths) == pytest.approx(of_positives | {"tokens": 30.0, "truncated_rate": 1 / 3})
    more = [scored(True, FLAWED, 1.0, 30), scored(False, SOUND, -1.0, 30)]
    truths += [GroundTruth(0, answer_correct=False), GroundTruth(0, answer_correct=False)]
    of_all = {"process_error_accuracy": 1 / 4, "process_correct_accuracy": 0.0, "process_f1": 0.0}
    assert genrm_metrics(rows + more, truths) == pytest.approx(
        of_positives | of_all | {"tokens": 30.0, "truncated_rate": 1 / 5}
    )
    assert genrm_metrics(more, truths[3:]).keys() == {*of_all, "tokens", "truncated_rate"}, (
        "nothing to be precise about"
    )
    yes_no = scored(True, Verdict("ok", flawed=True), 1.0, 10)
    assert "process_f1" not in genrm_metrics([yes_no, *more[1:]], truths[3:]), "it names no step"


def test_validation_of_a_genrm_gives_the_numbers_of_the_benchmarks() -> None:
    rng = random.Random(0)
    solutions = [
        LabelledSolution(Problem(f"set-{i}", "?", ""), ("a", "b", "c"), rng.choice([None, 0, 1, 2]), rng.random() < 0.6)
        for i in range(200)
    ]
    verdicts = [rng.choice([UNPARSABLE, *(Verdict.from_step(step) for step in (None, 0, 1, 2))]) for _ in solutions]
    critiques = [scored(True, verdict, 1.0) for verdict in verdicts]
    found = genrm_metrics(critiques, [GroundTruth(s.error_step, answer_correct=s.correct) for s in solutions])
    positives = [(s, v) for s, v in zip(solutions, verdicts, strict=True) if s.correct]
    flawed_positive = score_flawed_positive(*zip(*positives, strict=True)).point
    process = score_process(solutions, ["set"] * len(solutions), verdicts).pooled.point
    assert found["f1"] == flawed_positive.f1
    assert (found["precision"], found["recall"]) == (flawed_positive.precision, flawed_positive.recall)
    assert found["invalid_rate"] == flawed_positive.invalid_rate
    assert found["process_f1"] == process.f1
    assert (found["process_error_accuracy"], found["process_correct_accuracy"]) == (
        process.error_acc,
        process.correct_acc,
    )
