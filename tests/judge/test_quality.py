"""The scores of a judge against hand-counted tables and the definitions written out as loops."""

from __future__ import annotations

import json
import math
import random
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.judge import quality as m
from fapo.types import Verdict
from tests.support.paths import shared_data

NAN = math.nan


def ok(error_step: int | None) -> Verdict:
    return Verdict.from_step(error_step)


UNPARSABLE = Verdict("unparsable")
SOMEWHERE = Verdict("ok", flawed=True)
FAILED = Verdict("failed")

# --- Finding flawed positives ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("predicted", "truth", "invalid", "counts", "rates"),
    [
        ([True, False, True, False], [True, True, False, False], "wrong", (1, 1, 1), (0.5, 0.5, 0.5)),
        ([True, None, None], [True, True, False], "wrong", (1, 1, 1), (0.5, 0.5, 0.5)),
        ([True, None, None], [True, True, False], "flagged", (2, 1, 0), (2 / 3, 1.0, 0.8)),
        ([False, False], [True, False], "wrong", (0, 0, 1), (0.0, 0.0, 0.0)),
        ([None, None], [True, False], "wrong", (0, 1, 1), (0.0, 0.0, 0.0)),
        ([True, False], [False, False], "wrong", (0, 1, 0), (0.0, NAN, NAN)),
        ([False], [False], "wrong", (0, 0, 0), (0.0, NAN, NAN)),
        ([], [], "wrong", (0, 0, 0), (0.0, NAN, NAN)),
        ([True, True], [True, True], "wrong", (2, 0, 0), (1.0, 1.0, 1.0)),
    ],
)
def test_flawed_positive_prf(
    predicted: list[bool | None],
    truth: list[bool],
    invalid: Any,
    counts: tuple[int, int, int],
    rates: tuple[float, float, float],
) -> None:
    score = m.flawed_positive_prf(predicted, truth, invalid)
    assert (score.tp, score.fp, score.fn) == counts
    assert (score.precision, score.recall, score.f1) == pytest.approx(rates, nan_ok=True)
    assert (score.n, score.num_flawed) == (len(truth), sum(truth))
    share = predicted.count(None) / len(predicted) if predicted else NAN
    assert score.invalid_rate == pytest.approx(share, nan_ok=True)


rows = st.lists(st.tuples(st.sampled_from([True, False, None]), st.booleans()), min_size=1, max_size=40)


@given(rows)
def test_no_verdict_is_the_worst_answer_and_flagging_it_only_lifts_recall(pairs: list[tuple[Any, bool]]) -> None:
    predicted, truth = [p for p, _ in pairs], [t for _, t in pairs]
    score = m.flawed_positive_prf(predicted, truth)
    always_wrong = m.flawed_positive_prf([not t if p is None else p for p, t in pairs], truth)
    expected = replace(always_wrong, invalid_rate=score.invalid_rate)
    assert asdict(score) == pytest.approx(asdict(expected), nan_ok=True, rel=0, abs=0)
    assert score.tp + score.fn == score.num_flawed
    lenient = m.flawed_positive_prf(predicted, truth, "flagged")
    if score.num_flawed:
        assert lenient.recall >= score.recall and lenient.f1 >= score.f1
        if score.precision + score.recall:
            harmonic = 2 * score.precision * score.recall / (score.precision + score.recall)
            assert score.f1 == pytest.approx(harmonic)


def test_flawed_positive_prf_rejects() -> None:
    with pytest.raises(ValueError, match="1 for 2 rows"):
        m.flawed_positive_prf([True], [True, False])
    with pytest.raises(ValueError, match="invalid must be"):
        m.flawed_positive_prf([True], [True], "ignored")  # type: ignore[arg-type]


# --- Finding the first wrong step ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("predicted", "labels", "expected"),
    [
        ([ok(2), ok(1), ok(None), ok(0)], [2, 2, None, None], (0.5, 0.5, 0.5)),
        ([ok(0), ok(None)], [0, None], (1.0, 1.0, 1.0)),
        ([ok(1), ok(3)], [0, None], (0.0, 0.0, 0.0)),
        ([ok(0), ok(3)], [0, None], (1.0, 0.0, 0.0)),
        ([UNPARSABLE, FAILED], [0, None], (0.0, 0.0, 0.0)),
        ([SOMEWHERE, SOMEWHERE], [0, None], (0.0, 0.0, 0.0)),
        ([ok(0)], [0], (1.0, NAN, NAN)),
        ([ok(0)], [None], (NAN, 0.0, NAN)),
        ([], [], (NAN, NAN, NAN)),
    ],
)
def test_processbench_f1(
    predicted: list[Verdict], labels: list[int | None], expected: tuple[float, float, float]
) -> None:
    score = m.processbench_f1(predicted, labels)
    assert (score.error_acc, score.correct_acc, score.f1) == pytest.approx(expected, nan_ok=True)
    assert (score.n, score.num_error) == (len(labels), sum(label is not None for label in labels))


@pytest.mark.parametrize(
    ("predicted", "labels", "expected"),
    [
        ([ok(2), ok(1), ok(None), UNPARSABLE, ok(0)], [2, 2, 2, 2, None], 0.5),
        ([SOMEWHERE, ok(1), ok(0)], [0, 1, 1], 0.5),
        ([SOMEWHERE], [0], NAN),
        ([ok(None), FAILED], [1, 1], NAN),
        ([ok(0)], [None], NAN),
        ([], [], NAN),
    ],
)
def test_location_accuracy(predicted: list[Verdict], labels: list[int | None], expected: float) -> None:
    assert m.location_accuracy(predicted, labels) == pytest.approx(expected, nan_ok=True)


def test_labels_follow_the_verdicts_convention() -> None:
    for function in (m.processbench_f1, m.location_accuracy):
        with pytest.raises(ValueError, match="-1 into None"):
            function([ok(None)], [-1])
        with pytest.raises(ValueError, match="0 for 1 rows"):
            function([], [None])


@pytest.mark.parametrize("seed", range(5))
def test_processbench_scoring_on_its_rows(seed: int) -> None:
    """On the benchmark's rows, with answers of a made-up judge: the definition in plain loops, labels as stored."""
    path = shared_data("processbench_gsm8k.jsonl")
    stored = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(stored) == 400
    rnd = random.Random(seed)
    answers: list[int | str] = []  # -1: no error; "none": no verdict
    for row in stored:
        choices: list[int | str] = [row["label"], row["label"], -1, "none", rnd.randrange(len(row["steps"]))]
        answers.append(rnd.choice(choices))

    num_error = num_error_right = num_fine = num_fine_right = num_none = 0
    for row, answer in zip(stored, answers, strict=True):
        if answer == "none":
            num_none += 1
        if row["label"] == -1:
            num_fine += 1
            if answer == -1:
                num_fine_right += 1
        else:
            num_error += 1
            if answer == row["label"]:
                num_error_right += 1
    error_acc, correct_acc = num_error_right / num_error, num_fine_right / num_fine

    verdicts = [UNPARSABLE if isinstance(answer, str) else ok(None if answer == -1 else answer) for answer in answers]
    score = m.processbench_f1(verdicts, [None if row["label"] == -1 else row["label"] for row in stored])
    assert score.n == 400
    assert score.num_error == num_error
    assert score.error_acc == error_acc
    assert score.correct_acc == correct_acc
    assert score.f1 == pytest.approx(2 / (1 / error_acc + 1 / correct_acc))
    assert score.invalid_rate == num_none / 400


# --- All scores at once ----------------------------------------------------------------------------------------------


def test_flags_without_a_step_have_no_location() -> None:
    quality = m.judge_quality([SOMEWHERE, SOMEWHERE, ok(None)], [0, 1, None])
    assert (quality["precision"], quality["recall"]) == (1.0, 1.0)
    assert math.isnan(quality["location"])
    assert m.judge_quality([SOMEWHERE, ok(1)], [0, 1])["location"] == 1.0


def test_quality_of_a_judge_without_flawed_rows_is_unknown() -> None:
    found = m.judge_quality([ok(None), ok(1)], [None, None])
    assert (found["precision"], found["invalid_rate"]) == (0.0, 0.0)
    assert all(math.isnan(found[name]) for name in ("recall", "f1", "location"))


# --- Agreement with labels made by hand -------------------------------------------------------------------------------


def test_kappa() -> None:
    # 45 and 15 of 100 alike, 25 and 15 not
    first, second = [True] * 70 + [False] * 30, [True] * 45 + [False] * 25 + [True] * 15 + [False] * 15
    assert m.cohen_kappa(first, second) == pytest.approx((0.60 - 0.54) / (1 - 0.54))
    assert m.cohen_kappa([True, False], [True, False]) == 1.0
    assert m.cohen_kappa([True, False], [False, True]) == -1.0
    assert all(value != value for value in (m.cohen_kappa([], []), m.cohen_kappa([True] * 3, [True] * 3)))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_kappa_is_symmetric_and_at_most_one(pairs: list[tuple[bool, bool]]) -> None:
    first, second = zip(*pairs, strict=True)
    kappa = m.cohen_kappa(first, second)
    if kappa == kappa:
        assert kappa == pytest.approx(m.cohen_kappa(second, first)) and -1 - 1e-9 <= kappa <= 1 + 1e-9
        assert (kappa == pytest.approx(1)) == (first == second)


@given(st.integers(1, 50), st.integers(0, 50), st.integers(1, 50), st.integers(0, 50))
def test_youden_j_does_not_depend_on_the_rate_of_flawed_rows(flawed: int, hits: int, fine: int, false: int) -> None:
    hits, false = min(hits, flawed), min(false, fine)
    counts = hits, false, flawed - hits, fine - false
    predicted = [True] * hits + [False] * counts[2] + [True] * false + [False] * counts[3]
    score = m.flawed_positive_prf(predicted, [True] * flawed + [False] * fine)
    assert score.youden_j == pytest.approx(hits / flawed - false / fine)
    assert score.balanced_accuracy == pytest.approx((hits / flawed + 1 - false / fine) / 2)
    twice = m.flawed_positive_prf(predicted + predicted[flawed:], [True] * flawed + [False] * (2 * fine))
    assert twice.youden_j == pytest.approx(score.youden_j)
    assert 0 <= score.balanced_f1 <= score.balanced_accuracy + 1e-12
