"""Intervals of the final numbers and the split of time."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from fapo.evaluation.intervals import mean_interval, ratio_interval, wilson_interval
from fapo.judge.quality import judge_quality
from fapo.report import read_run, summarize, write_report
from fapo.report.intervals import GENRM_PARTS, intervals
from fapo.report.timing import TimeSplit, time_splits
from fapo.types import Verdict
from tests.support.run_folders import policy_rows, rollout, write_run


@pytest.mark.parametrize(
    ("k", "n", "level", "expected"),
    [
        (0, 0, 0.95, (0.0, 1.0)),
        (0, 10, 0.95, (0.0, 0.277533)),
        (10, 10, 0.95, (0.722467, 1.0)),
        (5, 10, 0.95, (0.236593, 0.763407)),
        (1, 1, 0.95, (0.206549, 1.0)),
        (50, 100, 0.99, (0.375280, 0.624720)),
    ],
)
def test_wilson_interval(k: int, n: int, level: float, expected: tuple[float, float]) -> None:
    assert wilson_interval(k, n, level) == pytest.approx(expected, abs=1e-6)


@given(st.integers(1, 500), st.data())
def test_wilson_bounds_are_where_the_score_test_turns(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    low, high = wilson_interval(k, n)
    assert 0 <= low <= k / n <= high <= 1
    for bound in {low, high} - {0.0, 1.0}:
        score = abs(k / n - bound) / math.sqrt(bound * (1 - bound) / n)
        assert score == pytest.approx(1.959964, abs=1e-4)
    assert wilson_interval(n - k, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@pytest.mark.parametrize(("k", "n", "level"), [(-1, 3, 0.95), (4, 3, 0.95), (1, 3, 0.0), (1, 3, 95)])
def test_wilson_rejects(k: int, n: int, level: float) -> None:
    with pytest.raises(ValueError, match="must lie between"):
        wilson_interval(k, n, level)


@given(st.lists(st.booleans(), min_size=2, max_size=60))
def test_one_answer_to_each_question_is_wilsons_interval(right: list[bool]) -> None:
    found = ratio_interval(right, [1] * len(right))
    k, n = sum(right), len(right)
    # the estimate of the variance has Bessel's correction, so the effective size is n - 1 at most
    assert found == pytest.approx(wilson_interval(k / n * (n - 1), n - 1) if 0 < k < n else wilson_interval(k, n))


def test_answers_that_agree_within_a_question_count_once() -> None:
    right = np.arange(40) % 4 != 0
    alike = ratio_interval(right * 8.0, np.full(40, 8.0))
    assert alike == pytest.approx(ratio_interval(right, np.ones(40)))
    low, high = ratio_interval(np.full(40, 6.0), np.full(40, 8.0))
    assert low == pytest.approx(wilson_interval(240, 320)[0]) and high - low < alike[1] - alike[0]


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    draw = np.random.default_rng(0)
    held = 0
    for _ in range(500):
        ease = draw.beta(2, 1, size=100)  # questions differ, so answers to one are alike
        right = draw.binomial(8, ease)
        low, high = ratio_interval(right, np.full(100, 8.0))
        held += low <= 2 / 3 <= high
    assert 0.92 <= held / 500 <= 0.98


def test_a_length_and_what_cannot_be_known() -> None:
    low, high = ratio_interval([10, 20, 30], [1, 1, 1], is_rate=False)
    assert (low + high) / 2 == pytest.approx(20) and high - 20 == pytest.approx(1.959964 * 10 / math.sqrt(3))
    for nothing in (([], []), ([1], [2]), ([0, 0], [0, 0])):
        assert all(map(math.isnan, ratio_interval(*nothing)))
    with pytest.raises(ValueError, match="num_groups"):
        ratio_interval([1, 2], [1])


@given(st.integers(1, 300), st.data())
def test_wilson_interval_is_that_of_scipy(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    level = data.draw(st.sampled_from([0.9, 0.95, 0.99]))
    expected = stats.binomtest(k, n).proportion_ci(level, method="wilson")
    assert wilson_interval(k, n, level) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize(
    ("num", "quantile"), [(2, 12.706205), (3, 4.302653), (11, 2.228139), (12, 2.200985), (31, 2.042272)]
)
def test_few_seeds_have_wide_intervals(num: int, quantile: float) -> None:
    values = [float(i) for i in range(num)]
    low, high = mean_interval(values)
    assert (low + high) / 2 == pytest.approx(np.mean(values))
    assert high - low == pytest.approx(2 * quantile * np.std(values, ddof=1) / math.sqrt(num), rel=1e-6)
    assert all(map(math.isnan, mean_interval([1.0])))


def test_an_interval_for_each_number_that_rollouts_can_tell(tmp_path: Path) -> None:
    rows = [rollout(20, i, 1 if i % 2 else None, 1 if i % 3 else None, split="validation") for i in range(30)]
    rows += [rollout(20, 30 + i, None, 0, split="validation", correct=False, flawed=None) for i in range(10)]
    rows += [rollout(10, i, None, None, split="validation") for i in range(30)]  # an earlier validation
    share = {"accuracy": 30 / 40, "reliable_accuracy": 10 / 40, "true_fp_ratio": 20 / 30, "fp_ratio": 0.5, "length": 21}
    metrics = [{"step": 20, "kind": "validation", **{f"validation/{name}": value for name, value in share.items()}}]
    run = read_run(write_run(tmp_path / "r", {"kind": "fapo"}, metrics, rows))
    found = {row.metric.name: interval for row, interval in intervals([run], summarize([run])).items()}
    assert found.keys() == share.keys()
    assert found["accuracy"] == pytest.approx(wilson_interval(30 * 39 / 40, 39))
    for name in ("true_fp_ratio", "fp_ratio"):
        low, high = found[name]
        assert low < share[name] < high and 0.25 < high - low < 0.45, "30 right answers"
    assert found["length"] == (21, 21)


def test_the_parts_of_a_judges_numbers_are_those_of_training(tmp_path: Path) -> None:
    verdicts = [(1, 1), (2, 1), (None, 1), (0, None), (None, None), ("failed", 1), ("failed", None), (2, 2)] * 4
    rows, given = [], []
    for i, (said, label) in enumerate(verdicts):
        failed = said == "failed"
        step = None if failed else said
        given.append(Verdict("unparsable") if failed else Verdict.from_step(step))
        changes = {"flawed": None if failed else step is not None, "error_step": step, "split": "test"}
        rows.append(rollout(5, i, None, label, **changes))
    quality = {**judge_quality(given, [label for _, label in verdicts]), "tokens": 21.0}
    metrics = [{"step": 5, "kind": "validation", **{f"test/{name}": value for name, value in quality.items()}}]
    run = read_run(write_run(tmp_path / "r", {"kind": "genrm_step"}, metrics, rows, task="genrm"))
    found = intervals([run], summarize([run]))
    assert {row.metric.name for row in found} == quality.keys()
    for row, (low, high) in found.items():
        assert low <= row.end <= high
    for name, part in GENRM_PARTS.items():
        sums = [sum(column) for column in zip(*map(part, rows), strict=True)]
        assert sums[0] / sums[1] == pytest.approx(quality[name]), name


def test_seeds_come_before_questions(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / str(i), {"kind": "fapo"}, policy_rows("fapo", i, 20)) for i in range(3)]
    runs = [read_run(folder) for folder in folders]
    found = intervals(runs, summarize(runs))
    row = next(row for row in found if (row.metric.name, row.split) == ("accuracy", "harder"))
    ends = [run.series("harder/accuracy").values[-1] for run in runs]
    assert found[row] == pytest.approx(mean_interval(ends))
    html = write_report(folders, tmp_path / "page.html").read_text(encoding="utf-8")
    assert f"[{100 * found[row][0]:.1f}, {100 * found[row][1]:.1f}]</i>" in html


def test_time_split(tmp_path: Path) -> None:
    rows = [
        {"step": s, "kind": "train", "time/rollout": 3.0 * s, "time/score": 1.0, "time/update": 1.0} for s in (1, 3)
    ]
    folders = [
        write_run(tmp_path / "timed", {"kind": "fapo"}, rows),
        write_run(tmp_path / "not", {"kind": "outcome"}, [{"step": 1, "kind": "train", "loss": 0.0}]),
    ]
    assert time_splits([read_run(folder) for folder in folders]) == [TimeSplit("FAPO", 6.0, 1.0, 1.0)]
    html = write_report(folders, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<th>FAPO</th><td>75 %</td><td>12 %</td><td>12 %</td><td>8.00 s</td>" in html
