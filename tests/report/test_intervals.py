"""Intervals of the final numbers of runs, from their rollouts or their seeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from fapo.evaluation.intervals import mean_interval, wilson_interval
from fapo.judge.quality import judge_quality
from fapo.report import read_run, summarize, write_report
from fapo.report.intervals import GENRM_PARTS, intervals
from fapo.training.rollout_row import rollout_row
from fapo.training.step_metrics import genrm_metrics
from fapo.types import GroundTruth, Problem, Reward, Rollout, ScoredRollout, Verdict
from tests.support.run_folders import policy_rows, rollout, write_run


def test_every_number_that_follows_from_rollouts_has_an_interval(tmp_path: Path) -> None:
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
    for name in quality:
        sums = [sum(column) for column in zip(*map(GENRM_PARTS[name], rows), strict=True)]
        assert sums[0] / sums[1] == pytest.approx(quality[name]), name


def test_critiques_of_wrong_answers_count_for_processbench_only(tmp_path: Path) -> None:
    cases = [(1, 1, True), (None, 1, True), (0, None, True), (2, 2, False), (0, 1, False), (None, None, True)] * 5
    rows, scored, truths = [], [], []
    for i, (said, label, correct) in enumerate(cases):
        truth = GroundTruth(label, answer_correct=correct)
        critique = Rollout(Problem(str(i), "?", ""), "x", 21)
        scored.append(ScoredRollout(critique, True, Verdict.from_step(said), Reward(1.0)))
        truths.append(truth)
        rows.append({"step": 5, "split": "pb", **rollout_row(scored[-1], None, truth)})
    values = genrm_metrics(scored, truths)
    metrics = [{"step": 5, "kind": "validation", **{f"pb/{name}": value for name, value in values.items()}}]
    run = read_run(write_run(tmp_path / "r", {"kind": "genrm_step"}, metrics, rows, task="genrm"))
    assert {row.metric.name for row in intervals([run], summarize([run]))} == GENRM_PARTS.keys()
    for name, part in GENRM_PARTS.items():
        sums = [sum(column) for column in zip(*map(part, rows), strict=True)]
        assert sums[0] / sums[1] == pytest.approx(values[name]), name


def test_seeds_come_before_questions(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / str(i), {"kind": "fapo"}, policy_rows("fapo", i, 20)) for i in range(3)]
    runs = [read_run(folder) for folder in folders]
    found = intervals(runs, summarize(runs))
    row = next(row for row in found if (row.metric.name, row.split) == ("accuracy", "harder"))
    ends = [run.series("harder/accuracy").values[-1] for run in runs]
    assert found[row] == pytest.approx(mean_interval(ends))
    html = write_report(folders, tmp_path / "page.html").read_text(encoding="utf-8")
    assert f"[{100 * found[row][0]:.1f}, {100 * found[row][1]:.1f}]</i>" in html


def test_numbers_that_only_one_of_two_runs_has_are_those_of_its_questions(tmp_path: Path) -> None:
    runs = []
    for name, split in (("one", "validation"), ("two", "harder")):  # nothing is correct on the other set
        rows = [rollout(20, i, 1 if i % 2 else None, None, split=split) for i in range(20)]
        metrics = [{"step": 20, "kind": "validation", f"{split}/accuracy": 1.0, f"{split}/fp_ratio": 0.5}]
        runs.append(read_run(write_run(tmp_path / name, {"kind": "fapo"}, metrics, rows)))
    found = {(row.metric.name, row.split): interval for row, interval in intervals(runs, summarize(runs)).items()}
    half = pytest.approx(wilson_interval(19 / 2, 19))
    assert found["fp_ratio", "validation"] == found["fp_ratio", "harder"] == half
