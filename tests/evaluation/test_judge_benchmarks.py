"""fapo bench: numbers counted by hand, the public definitions written out anew, bad input, judges behind a server."""

from __future__ import annotations

import json
import math
import random
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import harmonic_mean
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fapo.data.jsonl import read_jsonl, write_jsonl
from fapo.evaluation.intervals import difference_interval, f1_interval, wilson_interval
from fapo.evaluation.judge_benchmarks.compare import compare_judges
from fapo.evaluation.judge_benchmarks.output import Context
from fapo.evaluation.judge_benchmarks.predictions import first_below, read_predictions
from fapo.evaluation.judge_benchmarks.rows import Rows, load_rows, subset_names
from fapo.evaluation.judge_benchmarks.score import score_flawed_positive, score_process
from fapo.evaluation.judge_settings import judge_name
from fapo.judge.from_config import command_line_judge
from fapo.judge.quality import flawed_positive_prf, processbench_f1
from fapo.types import LabelledSolution, Problem, Verdict
from tests.support.chat_server import Reply, chat_server
from tests.support.command_line import fapo
from tests.support.paths import shared_data
from tests.support.processes import finished, imported_packages, start


def data_row(id: str, label: int, correct: bool = True, num_steps: int = 3) -> dict[str, Any]:
    steps = [f"step {index} of {id}" for index in range(num_steps)]
    return {"id": id, "problem": f"Problem {id}?", "steps": steps, "final_answer_correct": correct, "label": label}


ROWS = [
    data_row("a-0", 1),
    data_row("a-1", 0),
    data_row("a-2", -1),
    data_row("a-3", -1),
    data_row("a-4", 2, correct=False),
    data_row("b-0", 2),
    data_row("b-1", -1),
    data_row("b-2", 0, correct=False),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "data.jsonl", ROWS)
    return tmp_path / "data.jsonl"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """Return a function that runs `fapo bench` in this process and returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)  # the default cache lies there

    def call(*arguments: str | Path | float) -> tuple[int, str, str]:
        code = fapo(monkeypatch, "bench", *arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


@pytest.fixture
def score(run):
    """Return a function that runs `fapo bench --json` and returns the JSON, which must be all of stdout."""

    def call(*arguments: str | Path | float) -> dict[str, Any]:
        code, out, err = run(*arguments, "--json")
        assert code == 0, err
        found = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert isinstance(found, dict)
        return found

    return call


def predictions(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    write_jsonl(folder / "predictions.jsonl", rows)
    return folder / "predictions.jsonl"


# --- Numbers counted by hand -----------------------------------------------------------------------------------------

ANSWERS = [
    {"id": "a-0", "error_step": 2},  # flawed, flagged at another step
    {"id": "a-1", "error_step": 7},  # flawed, beyond the steps
    {"id": "a-2", "error_step": -1, "status": "ok"},  # correct, not flagged
    {"id": "a-3", "error_step": 0, "status": "unparsable"},  # correct, without a verdict, although it has a step
    {"id": "a-4", "error_step": 2},  # named exactly
    {"id": "b-0", "error_step": 2},  # named exactly
    {"id": "b-1", "error_step": 1},  # correct, flagged
]  # b-2 is missing

PRF = {
    "wrong": {
        "tp": 2,
        "fp": 2,
        "fn": 1,
        "tn": 1,
        "youden_j": 2 / 3 - 2 / 3,
        "balanced_accuracy": 1 / 2,
        "precision": 2 / 4,
        "recall": 2 / 3,
        "f1": 4 / 7,
    },
    "flagged": {
        "tp": 3,
        "fp": 2,
        "fn": 0,
        "tn": 1,
        "youden_j": 1 - 2 / 3,
        "balanced_f1": 1 / 2,
        "precision": 3 / 5,
        "recall": 1.0,
        "f1": 6 / 8,
    },
}


@pytest.mark.parametrize("invalid", PRF)
def test_flawed_positive_counted_by_hand(invalid: str, data: Path, tmp_path: Path, score) -> None:
    answers = predictions(tmp_path, ANSWERS)
    found = score("flawed-positive", "--data", data, "--predictions", answers, "--invalid", invalid)
    counts = {"n": 6, "num_flawed": 3, "invalid_rate": 2 / 6, "num_unparsable": 2, "num_failed": 0, "num_missing": 0}
    for name, value in {**PRF[invalid], **counts}.items():
        assert found[name] == pytest.approx(value), name
    assert found["benchmark"] == "flawed-positive"
    assert found["conventions"]["invalid"] == invalid
    assert "threshold" not in found["conventions"]
    assert sum(part["n"] for part in found["by_num_steps"].values()) == 6
    assert list(found["by_length"]) == ["0-500"] and found["by_length"]["0-500"]["n"] == 6
    for name in ("precision", "recall", "f1", "youden_j"):
        low, high = found[f"{name}_interval"]
        assert -1 <= low <= found[name] <= high <= 1


def test_process_counted_by_hand(data: Path, tmp_path: Path, score) -> None:
    found = score("process", "--data", data, "--predictions", predictions(tmp_path, ANSWERS))
    assert found["benchmark"] == "process"
    assert found["subsets"] == {
        "a": {"n": 5, "error_acc": pytest.approx(1 / 3), "correct_acc": 1 / 2, "f1": pytest.approx(0.4)},
        "b": {"n": 3, "error_acc": 1 / 2, "correct_acc": 0.0, "f1": 0.0},
    }
    assert found["mean_f1"] == pytest.approx(0.2)
    assert found["pooled_f1"] == pytest.approx(2 * (2 / 5) * (1 / 3) / (2 / 5 + 1 / 3))
    assert found["invalid_rate"] == 3 / 8
    assert (found["num_unparsable"], found["num_failed"], found["num_missing"]) == (2, 0, 1)
    assert found["subset_details"]["a"]["num_error"] == 3
    assert sum(found["step_distances"].values()) == found["tp"] and found["step_distances"]["0"] == 2


@pytest.mark.parametrize(
    ("judge", "precision", "recall", "error_acc", "correct_acc"),
    [("flag-all", 0.5, 1, 1 / 3, 0), ("flag-none", 0, 0, 0, 1)],
)
def test_rules_that_read_nothing(judge, precision, recall, error_acc, correct_acc, data: Path, score) -> None:
    found = score("flawed-positive", "--data", data, "--judge", judge)
    assert (found["precision"], found["recall"], found["invalid_rate"]) == (precision, recall, 0)
    point = score("process", "--data", data, "--judge", judge)["subsets"]["a"]
    assert (point["error_acc"], point["correct_acc"], point["f1"]) == (error_acc, correct_acc, 0)


def test_rules_that_read_nothing_are_compared(data: Path, tmp_path: Path, score) -> None:
    rules = ("--judge", "flag-none", "--judge", "flag-all")
    found = score("process", "--data", data, *rules, "--out", tmp_path / "rule.jsonl", "--table", tmp_path / "rule.md")
    assert list(found["judges"]) == ["flag-none", "flag-all"]
    assert found["judges"]["flag-all"]["differences"]["correct_acc"]["value"] == -1
    for name, step in (("flag-none", None), ("flag-all", 0)):
        rows = [json.loads(line) for line in (tmp_path / f"rule.{name}.jsonl").read_text().splitlines()]
        assert [row["error_step"] for row in rows] == [step] * len(ROWS)
    assert "| flag-all |" in (tmp_path / "rule.md").read_text()


def test_undefined_numbers_are_null(tmp_path: Path, score) -> None:
    write_jsonl(tmp_path / "sound.jsonl", [data_row("a-0", -1), data_row("a-1", -1)])
    found = score("flawed-positive", "--data", tmp_path / "sound.jsonl", "--judge", "flag-all")
    assert (found["precision"], found["recall"], found["f1"]) == (0, None, None)
    assert found["recall_interval"] == [None, None]
    found = score("process", "--data", tmp_path / "sound.jsonl", "--judge", "flag-none")
    assert found["subsets"]["a"] == {"n": 2, "error_acc": None, "correct_acc": 1.0, "f1": None}
    assert found["mean_f1"] is None


def test_the_table_names_numbers_and_conventions(data: Path, tmp_path: Path, run) -> None:
    write_jsonl(tmp_path / "more.jsonl", [data_row("[bold]x\x1b[31m-1", -1)])
    answers = predictions(tmp_path, [{"id": "a-0", "scores": [0.9, 0.1, 0.9]}])
    code, out, err = run("process", "--data", data, tmp_path / "more.jsonl", "--predictions", answers)
    assert (code, err) == (0, "")
    for part in (
        "33.3 %",
        "[0.0, 100.0]",
        "balanced F1",
        "rows without a verdict: 8 missing; such a row counts",
        "score below 0.5",
        "interval: 95%",
    ):
        assert part in out
    assert "[bold]x\\u001b[31m" in out, "ids are shown, not obeyed"


# --- Scores of a PRM -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scores", "threshold", "step"),
    [
        ([0.9, 0.4, 0.1], 0.5, 1),
        ([0.9, 0.4, 0.1], 0.4, 2),  # at the threshold is not below
        ([0.9, 0.4, 0.1], 0.1, None),
        ([0.9, 0.4, 0.1], 2, 0),
        ([-3, 10**400, 0], 0, 0),
        ([], 0.5, None),
    ],
)
def test_the_first_score_below_the_threshold(scores: list[float], threshold: float, step: int | None) -> None:
    assert first_below(scores, threshold) == step


@given(st.lists(st.floats(0, 1)), st.floats(0, 1), st.floats(0, 1))
def test_a_higher_threshold_never_flags_later(scores: list[float], one: float, other: float) -> None:
    low, high = (first_below(scores, threshold) for threshold in sorted((one, other)))
    assert (math.inf if high is None else high) <= (math.inf if low is None else low)


def test_scores_become_predictions(data: Path, tmp_path: Path, score) -> None:
    rows = [
        {"id": "a-0", "scores": [0.9, 0.3, 0.2]},
        {"id": "a-2", "scores": [1, 0.6, 0.9]},
        {"id": "b-0", "error_step": 2},
    ]
    answers = predictions(tmp_path, [*rows, {"id": "a-1", "scores": [0, 0, 0], "status": "failed"}])
    found = score("flawed-positive", "--data", data, "--predictions", answers)
    assert (found["tp"], found["fp"], found["fn"], found["num_missing"], found["num_failed"]) == (2, 2, 1, 2, 1)
    assert found["conventions"]["threshold"] == 0.5
    found = score("process", "--data", data, "--predictions", answers, "--threshold", 0.7)
    assert found["subsets"]["a"]["error_acc"] == pytest.approx(1 / 3)
    assert found["subsets"]["a"]["correct_acc"] == 0, "0.6 is below 0.7"
    assert found["conventions"]["threshold"] == 0.7


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_table_has_null_where_a_row_has_no_value(suffix: str, tmp_path: Path) -> None:
    rows = [
        {"id": "a-0", "scores": [0.9, 0.3, 0.2], "error_step": None, "flawed": None},
        {"id": "a-1", "scores": None, "error_step": 1, "flawed": None},
        {"id": "a-2", "scores": None, "error_step": None, "flawed": False},
        {"id": "b-0", "scores": None, "error_step": None, "flawed": True},
    ]
    file = predictions(tmp_path, rows)
    if suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        file = tmp_path / "predictions.parquet"
        parquet.write_table(sys.modules["pyarrow"].Table.from_pylist(rows), file)
    found = read_predictions(file, {"a-0": 3, "a-1": 3, "a-2": 3, "b-0": 3})
    verdicts = {id: (one.verdict.flawed, one.verdict.error_step) for id, one in found.items() if one.verdict}
    assert verdicts == {"a-0": (True, 1), "a-1": (True, 1), "a-2": (False, None), "b-0": (True, None)}


# --- Invariants ------------------------------------------------------------------------------------------------------


def solution(id: str, label: int | None, problem: str = "") -> LabelledSolution:
    return LabelledSolution(Problem(id, problem or f"{id}?", ""), ("s",) * 4, label, True)


answers = st.one_of(
    st.sampled_from([Verdict("unparsable"), Verdict("failed")]),
    st.builds(Verdict.from_step, st.one_of(st.none(), st.integers(0, 3))),
)
judged = st.lists(
    st.tuples(st.one_of(st.none(), st.integers(0, 3)), answers, st.sampled_from("xy")), min_size=1, max_size=30
)


@settings(max_examples=60, deadline=None)
@given(judged, st.randoms(), st.sampled_from(["wrong", "flagged"]))
def test_bounds_and_order(cases: list[tuple[Any, Verdict, str]], rnd: random.Random, invalid: Any) -> None:
    def scores(order: Sequence[int]):
        rows = [solution(f"r-{index}", cases[index][0]) for index in order]
        verdicts = [cases[index][1] for index in order]
        names = [cases[index][2] for index in order]
        return score_flawed_positive(rows, verdicts, invalid), score_process(rows, names, verdicts)

    order = list(range(len(cases)))
    flawed, process = scores(order)
    shuffled = order[:]
    rnd.shuffle(shuffled)
    assert repr(scores(shuffled)) == repr((flawed, process)), "nothing depends on the order of the rows"

    assert math.isnan(flawed.point.youden_j) or -1 <= flawed.point.youden_j <= 1
    assert sum(part.tp for part in flawed.by_num_steps.values()) == flawed.point.tp
    numbers = [flawed.point.f1, flawed.point.precision, process.mean_f1, process.pooled.point.f1]
    intervals = [flawed.f1, flawed.precision, process.mean_f1_interval, process.pooled.f1]
    for number, (low, high) in zip(numbers, intervals, strict=True):
        assert math.isnan(number) or 0 <= number <= 1
        assert math.isnan(low) or 0 <= low <= high <= 1
    for part in process.subsets.values():
        parts = (part.point.error_acc, part.point.correct_acc)
        assert math.isnan(part.point.f1) or min(parts) - 1e-12 <= part.point.f1 <= max(parts) + 1e-12


def test_a_judge_without_errors_has_an_interval() -> None:
    rows = [solution(f"r-{i}", step) for i, step in enumerate([1] * 7 + [None] * 43)]
    right, blind = [Verdict.from_step(row.error_step) for row in rows], [Verdict.from_step(None)] * 50
    found = score_flawed_positive(rows, right)
    assert found.recall == found.precision == wilson_interval(7, 7)
    assert (found.f1, found.youden_j) == (f1_interval(7, 0, 0), difference_interval(7, 7, 0, 43))
    assert score_flawed_positive(rows, blind).recall == wilson_interval(0, 7)
    process = score_process(rows, ["s"] * 50, right)
    assert (process.pooled.error_acc, process.pooled.correct_acc) == (wilson_interval(7, 7), wilson_interval(43, 43))
    low, high = process.mean_f1_interval
    assert wilson_interval(7, 7)[0] < low < wilson_interval(43, 43)[0] and high == 1
    assert process.pooled.f1 == process.mean_f1_interval
    assert score_process(rows, ["s"] * 50, blind).pooled.f1[0] == 0


def test_a_class_without_errors_is_as_uncertain_in_the_numbers_of_both_classes() -> None:
    """Seven flawed solutions that are all found say little about J and the F1 of ProcessBench."""
    rows = [solution(f"r-{i}", step) for i, step in enumerate([1] * 7 + [None] * 100)]
    verdicts = [Verdict.from_step(step) for step in [1] * 7 + [0] * 10 + [None] * 90]
    j, low = score_flawed_positive(rows, verdicts).youden_j, wilson_interval(7, 7)[0]
    assert j == difference_interval(7, 7, 10, 100) and j[0] < low
    found = score_process(rows, ["s"] * len(rows), verdicts)
    specificity = wilson_interval(90, 100)
    assert found.pooled.f1 == pytest.approx((harmonic_mean([low, specificity[0]]), harmonic_mean([1, specificity[1]])))
    assert found.mean_f1_interval == pytest.approx(found.pooled.f1)
    found = score_process(rows[:7], ["s"] * 7, verdicts[:7])
    assert all(math.isnan(end) for end in (*found.pooled.f1, *found.mean_f1_interval, *found.flags.youden_j))


def test_intervals_of_numbers_of_both_classes_hold_the_truth() -> None:
    """Of 200 judges with recall 95 % and false positive rate 10 %, at least nine in ten have an interval with it."""
    rng, rows = random.Random(0), [solution(f"r-{i}", step) for i, step in enumerate([1] * 7 + [None] * 100)]
    hits = {"j": 0, "f1": 0}
    for _ in range(200):
        rates = [0.95 if row.error_step else 0.1 for row in rows]
        verdicts = [Verdict.from_step(1 if rng.random() < rate else None) for rate in rates]
        low, high = score_flawed_positive(rows, verdicts).youden_j
        hits["j"] += low <= 0.85 <= high
        low, high = score_process(rows, ["s"] * len(rows), verdicts).pooled.f1
        hits["f1"] += low <= harmonic_mean([0.95, 0.9]) <= high
    assert all(num >= 180 for num in hits.values()), hits


@pytest.mark.parametrize("num_solutions", [1, 5])
def test_intervals_are_those_of_drawing_problems(num_solutions: int) -> None:
    """The intervals equal those of resampling problem by problem and scoring with the plain functions."""
    rnd = random.Random(3)  # no class of a subset is judged rightly as a whole
    labels = [rnd.choice([None, None, 0, 1]) for _ in range(60)]
    verdicts = [Verdict.from_step(rnd.choice([label, label, 0, None])) for label in labels]
    verdicts[::7] = [Verdict("unparsable")] * len(verdicts[::7])
    if num_solutions > 1:  # half of the problems are judged rightly, whatever the solution
        verdicts = [Verdict.from_step(labels[i]) if i // num_solutions % 2 else v for i, v in enumerate(verdicts)]
    rows = [solution(f"r-{index}", label, f"{index // num_solutions}?") for index, label in enumerate(labels)]
    names = ["x" if index < 35 else "y" for index in range(60)]

    def draw(first: int, end: int) -> list[int]:
        problems = range(first // num_solutions, end // num_solutions)
        chosen = rnd.choices(problems, k=len(problems))
        return [problem * num_solutions + i for problem in chosen for i in range(num_solutions)]

    precision, recall, f1, j, mean = [], [], [], [], []
    for _ in range(1500):
        drawn = draw(0, 60)
        prf = flawed_positive_prf([verdicts[i].flawed for i in drawn], [labels[i] is not None for i in drawn])
        precision.append(prf.precision)
        recall.append(prf.recall)
        f1.append(prf.f1)
        j.append(prf.youden_j)
        parts = [draw(0, 35), draw(35, 60)]
        mean.append(np.mean([processbench_f1([verdicts[i] for i in p], [labels[i] for i in p]).f1 for p in parts]))

    flawed, process = score_flawed_positive(rows, verdicts), score_process(rows, names, verdicts)
    for values, interval in [
        (precision, flawed.precision),
        (recall, flawed.recall),
        (f1, flawed.f1),
        (j, flawed.youden_j),
        (mean, process.mean_f1_interval),
    ]:
        assert interval == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.03)
        assert interval[1] - interval[0] > 0.1


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(20, 60), min_size=4, max_size=4), st.integers(2, 6), st.randoms())
def test_copies_of_a_solution_make_no_interval_narrower(nums: list[int], num_copies: int, rnd: random.Random) -> None:
    """All intervals are as wide with copies of each row as without, alone and in a comparison of two judges."""
    kinds = [(1, 1)] * nums[0] + [(1, None)] * nums[1] + [(None, 0)] * nums[2] + [(None, None)] * nums[3]
    second = [step if rnd.random() < 0.7 else label for label, step in kinds]

    def intervals(copies: int) -> list[float]:
        rows = [solution(f"r-{i}-{k}", label, f"{i}?") for i, (label, _) in enumerate(kinds) for k in range(copies)]
        steps = [step for _, step in kinds for _ in range(copies)], [step for step in second for _ in range(copies)]
        contexts = [
            Context((), "", f"{n}", "m, x", list(map(Verdict.from_step, of_one))) for n, of_one in enumerate(steps)
        ]
        names = ("all",) * len(rows)
        flags, process = (
            score_flawed_positive(rows, contexts[0].verdicts),
            score_process(rows, names, contexts[0].verdicts),
        )
        compared = compare_judges("process", Rows(tuple(rows), names, {}), contexts)
        assert (flags.num_problems, compared.num_problems, compared.num_rows) == (len(kinds), len(kinds), len(rows))
        pooled = process.pooled
        alone = [
            flags.precision,
            flags.recall,
            flags.f1,
            flags.youden_j,
            pooled.error_acc,
            pooled.f1,
            process.mean_f1_interval,
        ]
        paired = [difference.interval for difference in compared.judges["1"].differences.values()]
        return [high - low for low, high in [*alone, *paired, compared.sensitivity[0].disagreement.interval]]

    assert intervals(num_copies) == pytest.approx(intervals(1), rel=0.12)


def test_the_output_says_what_was_drawn(tmp_path: Path, run, score) -> None:
    """Rows of one problem are those with the same question, in whatever file they stand."""
    rows = [data_row(f"a-{i}", i % 2 - 1) | {"problem": f"Problem {i // 4}?"} for i in range(16)]
    write_jsonl(tmp_path / "one.jsonl", rows[:10])
    write_jsonl(tmp_path / "two.jsonl", rows[10:])
    data = ("--data", tmp_path / "one.jsonl", tmp_path / "two.jsonl")
    files = [answers_of(tmp_path, f"{name}.jsonl", {row["id"]: 0 for row in rows}) for name in ("first", "second")]
    for benchmark in ("flawed-positive", "process"):
        found = score(benchmark, *data, "--predictions", files[0])
        assert (found["n"], found["num_problems"]) == (16, 4)
        assert "bootstrap over the 4 problems (some have several rows)" in found["conventions"]["interval"]
        compared = score(benchmark, *data, "--predictions", *files)
        assert (compared["num_rows"], compared["num_problems"]) == (16, 4)
        assert "bootstrap over the 4 problems (some have several rows)" in " ".join(compared["notes"])
    assert "over the 4 problems" in run("process", *data, "--judge", "flag-all")[1]


def test_correct_rows_are_drawn_too() -> None:
    """3 of 5 flawed rows among 100 are found: a draw often holds none of the 3 (e^-3 > 2.5 %)."""
    labels = [0] * 5 + [None] * 95
    verdicts = [Verdict.from_step(0)] * 3 + [Verdict.from_step(None)] * 97
    found = score_flawed_positive([solution(f"r-{i}", label) for i, label in enumerate(labels)], verdicts)
    assert found.recall == (0, 1)


# --- Parity with the definitions, on the benchmark's own rows --------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_parity_with_the_public_convention(seed: int, tmp_path: Path, score) -> None:
    files = [shared_data("processbench_gsm8k.jsonl"), shared_data("processbench_math.jsonl")]
    rnd = random.Random(seed)
    rows = [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    said = {
        row["id"]: rnd.choice([row["label"], row["label"], -1, None, rnd.randrange(len(row["steps"]))]) for row in rows
    }
    stored = [
        {"id": id, "status": "unparsable"} if step is None else {"id": id, "error_step": step}
        for id, step in said.items()
    ]
    rnd.shuffle(stored)
    given = ["--data", *files, "--predictions", predictions(tmp_path, stored)]

    f1 = {}
    found = score("process", *given)
    for name in ("gsm8k", "math"):
        own = [row for row in rows if row["id"].startswith(name)]
        rates = []
        for erroneous in (True, False):
            part = [row for row in own if (row["label"] != -1) == erroneous]
            rates.append(sum(said[row["id"]] == row["label"] for row in part) / len(part))
        f1[name] = 2 * rates[0] * rates[1] / (rates[0] + rates[1])
        assert found["subsets"][name] == {
            "n": len(own),
            "error_acc": pytest.approx(rates[0]),
            "correct_acc": pytest.approx(rates[1]),
            "f1": pytest.approx(f1[name]),
        }
    assert found["mean_f1"] == pytest.approx((f1["gsm8k"] + f1["math"]) / 2)
    assert (found["n"], found["num_error"]) == (1400, 801)

    right = [row for row in rows if row["final_answer_correct"]]
    flagged = [row for row in right if said[row["id"]] != -1]  # public script: what cannot be parsed is not -1
    hits = sum(row["label"] != -1 for row in flagged)
    found = score("flawed-positive", *given, "--invalid", "flagged")
    assert (found["n"], found["num_flawed"]) == (700, 101)
    assert found["precision"] == pytest.approx(hits / len(flagged))
    assert found["recall"] == pytest.approx(hits / 101)
    strict = score("flawed-positive", *given)
    misses = sum(row["label"] != -1 and said[row["id"]] is None for row in right)
    assert strict["recall"] == pytest.approx((hits - misses) / 101)
    assert strict["precision"] == pytest.approx((hits - misses) / (len(flagged) - misses))


# --- Bad input -------------------------------------------------------------------------------------------------------

FINE = '{"id": "a-0", "error_step": null}\n'
BAD_PREDICTIONS = {
    "unknown id": ('{"id": "a-99", "error_step": 0}', "2: id 'a-99' is in no row of the data"),
    "duplicate id": ('{"id": "a-0", "error_step": 0}', "2: id 'a-0' has a prediction already, at "),
    "no id": ('{"error_step": 0}', "2: id is None"),
    "id a list": ('{"id": ["a-1"], "error_step": 0}', "2: id is ['a-1']"),
    "true": ('{"id": "a-1", "error_step": true}', "2: error_step is True, must be an integer"),
    "text": ('{"id": "a-1", "error_step": "1"}', "2: error_step is '1', must be an integer"),
    "fraction": ('{"id": "a-1", "error_step": 1.0}', "2: error_step is 1.0, must be an integer"),
    "NaN step": ('{"id": "a-1", "error_step": NaN}', "2: error_step is nan, must be an integer"),
    "flawed is null": ('{"id": "a-1", "flawed": null}', "2: must have error_step or scores"),
    "neither": ('{"id": "a-1", "step": 1}', "2: must have error_step or scores"),
    "flag and no step": ('{"id": "a-1", "error_step": -1, "flawed": true}', "2: flawed is true but error_step is -1"),
    "no flag and a step": ('{"id": "a-1", "error_step": 1, "flawed": false}', "2: flawed is false but error_step is 1"),
    "both": ('{"id": "a-1", "error_step": 1, "scores": [1, 0, 1]}', "2: has scores and error_step"),
    "status": ('{"id": "a-1", "error_step": 1, "status": "OK"}', "2: status is 'OK', must be one of ok, unparsable"),
    "status a list": ('{"id": "a-1", "error_step": 1, "status": []}', "2: status is []"),
    "NaN score": ('{"id": "a-1", "scores": [1, NaN, 1]}', "2: scores[1] is nan, must be a finite number"),
    "infinite score": ('{"id": "a-1", "scores": [1, 1, -Infinity]}', "2: scores[2] is -inf, must be a finite number"),
    "score a text": ('{"id": "a-1", "scores": [1, "0.2", 1]}', "2: scores[1] is '0.2'"),
    "score null": ('{"id": "a-1", "scores": [1, null, 1]}', "2: scores[1] is None"),
    "score true": ('{"id": "a-1", "scores": [1, true, 1]}', "2: scores[1] is True"),
    "scores a number": ('{"id": "a-1", "scores": 0.2}', "2: scores is 0.2, must be a list"),
    "too few scores": ('{"id": "a-1", "scores": [1, 1]}', "2: has 2 scores, must have one for each of the 3 steps"),
    "too many scores": ('{"id": "a-1", "scores": [1, 1, 1, 1]}', "2: has 4 scores"),
    "no scores": ('{"id": "a-1", "scores": []}', "2: has 0 scores"),
    "flawed a number": ('{"id": "a-1", "flawed": 1}', "2: flawed is 1, must be true or false"),
    "no object": ("[1]", "2: must be a JSON object"),
    "no JSON": ('{"id": "a-1", ', "2: invalid JSON"),
    "long number": ('{"id": "a-1", "error_step": ' + "9" * 5000 + "}", "2: invalid JSON"),
    "bytes": (b'{"id": "a-1\xff"}', "2: invalid UTF-8"),
}


@pytest.mark.parametrize("name", BAD_PREDICTIONS)
def test_bad_predictions_are_errors_with_their_place(name: str, data: Path, tmp_path: Path, run) -> None:
    line, message = BAD_PREDICTIONS[name]
    file = tmp_path / "predictions.jsonl"
    file.write_bytes(FINE.encode() + (line if isinstance(line, bytes) else line.encode()) + b"\n")
    code, out, err = run("flawed-positive", "--data", data, "--predictions", file, "--json")
    assert (code, out) == (2, "")
    assert f"fapo: {file}:{message}" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("step", [3, -2, 10**30])
def test_an_index_beyond_the_steps_is_no_verdict(step: int, data: Path, tmp_path: Path, score) -> None:
    found = score(
        "process", "--data", data, "--predictions", predictions(tmp_path, [{"id": "a-0", "error_step": step}])
    )
    assert (found["num_unparsable"], found["num_missing"], found["invalid_rate"]) == (1, 7, 1)


def test_a_judge_that_does_not_locate_cannot_be_scored_on_steps(data: Path, tmp_path: Path, run, score) -> None:
    answers = predictions(tmp_path, [{"id": "a-0", "flawed": True}, {"id": "a-2", "flawed": False}])
    found = score("flawed-positive", "--data", data, "--predictions", answers)
    assert (found["tp"], found["num_missing"]) == (1, 4)
    code, _, err = run("process", "--data", data, "--predictions", answers)
    assert (code, "predictions.jsonl:1: says flawed but not where" in err) == (2, True)


def test_predictions_about_rows_that_do_not_count_are_fine(data: Path, tmp_path: Path, score) -> None:
    answers = predictions(tmp_path, [{"id": "a-4", "error_step": 0}, {"id": "a-0", "status": "skipped"}])
    assert score("flawed-positive", "--data", data, "--predictions", answers)["num_missing"] == 6


def without(row: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}


BAD_DATA = {
    "no final_answer_correct": ([ROWS[0], without(ROWS[1], "final_answer_correct")], ":2: no final_answer_correct"),
    "null": ([{**ROWS[0], "final_answer_correct": None}], ":1: final_answer_correct is None"),
    "no label": ([without(ROWS[0], "label")], ":1: label is None"),
    "label beyond": ([{**ROWS[0], "label": 3}], ":1: label is 3"),
    "label true": ([{**ROWS[0], "label": True}], ":1: label is True"),
    "no steps": ([{**ROWS[0], "steps": []}], ":1: the solution has no steps"),
    "duplicate": ([ROWS[0], ROWS[0]], ":2: id 'a-0' is already that of"),
    "none that counts": ([ROWS[4]], "no row with final_answer_correct true"),
    "nothing": ([], "is empty"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_data_is_an_error_with_its_place(name: str, tmp_path: Path, run) -> None:
    rows, message = BAD_DATA[name]
    write_jsonl(tmp_path / "data.jsonl", rows)
    code, out, err = run("flawed-positive", "--data", tmp_path / "data.jsonl", "--judge", "flag-all", "--json")
    assert (code, out) == (2, "")
    assert f"data.jsonl{message}" in err or message in err


CALLS: dict[str, tuple[list[str], str]] = {
    "no judge": (["--data", "DATA"], "give either --predictions FILE or --judge"),
    "both": (["--data", "DATA", "--judge", "flag-all", "--predictions", "x"], "give either"),
    "no data": (["--judge", "flag-all"], "no data given"),
    "no file": (["--data", "none.jsonl", "--judge", "flag-all"], "none.jsonl: neither a file nor a Hugging Face id"),
    "no predictions": (["--data", "DATA", "--predictions", "none.jsonl"], "none.jsonl: no such file"),
    "empty predictions": (["--data", "DATA", "--predictions", "empty.jsonl"], "empty.jsonl: no predictions in it"),
    "twice": (["--data", "DATA", "DATA", "--judge", "flag-all"], "id 'a-0' is also in another file"),
    "a rule and a model": (
        ["--data", "DATA", "--judge", "http://x", "--judge", "flag-all", "--model", "m"],
        "--judge flag-all does not go with a model as another --judge",
    ),
    "a rule twice": (["--data", "DATA", "--judge", "flag-all", "--judge", "flag-all"], "flag-all is named twice"),
    "a prompt for a file": (
        ["--data", "DATA", "--predictions", "x", "--template", "yes_no"],
        "--template does not go with --predictions: no model is asked; name the steps by --steps instead",
    ),
    "a threshold for a rule": (
        ["--data", "DATA", "--judge", "flag-all", "--threshold", "0.3"],
        "--threshold does not go with --judge flag-all",
    ),
    "what an answer without a verdict means": (
        ["--data", "DATA", "--predictions", "x", "--invalid", "flagged"],
        "--invalid is for flawed-positive",
    ),
    "no model": (["--data", "DATA", "--judge", "http://127.0.0.1:9"], "--model is missing"),
    "no URL": (["--data", "DATA", "--judge", "oracle", "--model", "m"], "'oracle' is neither a URL"),
    "greedy votes": (
        ["--data", "DATA", "--judge", "http://x", "--model", "m", "--votes", "3", "--temperature", "0"],
        "`votes` above 1 at `temperature` 0",
    ),
    "no votes": (["--data", "DATA", "--judge", "http://x", "--model", "m", "--votes", "0"], "votes: should be"),
    "no limit": (
        ["--data", "DATA", "--judge", "flag-all", "--limit", "0"],
        "limit: should be greater than or equal to 1, not 0",
    ),
    "threshold": (["--data", "DATA", "--predictions", "DATA", "--threshold", "nan"], "threshold is nan"),
    "no template": (
        ["--data", "DATA", "--judge", "http://x", "--model", "m", "--template", "no"],
        "no prompt template",
    ),
    "no local model": (["--data", "DATA", "--judge", "local:./nothing"], "cannot load './nothing'"),
    "no miniature": (
        ["--data", "miniature:nothing", "--judge", "flag-all"],
        "no labelled solutions 'miniature:nothing'",
    ),
    "out on the data": (["--data", "DATA", "--judge", "flag-all", "--out", "DATA"], "is one of the files to read"),
    "out in another format": (["--data", "DATA", "--judge", "flag-all", "--out", "o.parquet"], "must end in .jsonl"),
    "out on a folder": (["--data", "DATA", "--judge", "http://x", "--model", "m", "--out", "."], ".: is a folder"),
    "out on the cache": (
        ["--data", "DATA", "--judge", "http://x", "--model", "m", "--cache", "o", "--out", "o"],
        "o: is one of the files to read",
    ),
    "a prompt twice": (
        ["--data", "DATA", "--judge", "x", "--template", "a", "--template", "b/a.txt"],
        "a is named twice",
    ),
    "a file twice": (["--data", "DATA", "--predictions", "x", "x"], "--predictions: x is named twice"),
    "table of one": (["--data", "DATA", "--predictions", "x", "--table", "t.md"], "--table is for a comparison"),
    "form of the table": (
        ["--data", "DATA", "--predictions", "x", "y", "--table", "t.txt"],
        "must end in .md or .html",
    ),
    "form of the plot": (["--data", "DATA", "--predictions", "x", "y", "--plot", "p.gif"], "must end in .png or .svg"),
    "different steps": (
        ["--data", "DATA", "--judge", "miniature:genrm", "--template", "compact", "--template", "locate"],
        "set one of them by --steps",
    ),
    "nothing in common": (
        ["--data", "DATA", "--predictions", "first.jsonl", "second.jsonl"],
        "no row has a prediction",
    ),
    "out of a file": (["--data", "DATA", "--predictions", "x", "--out", "y"], "--out is for answers of a --judge"),
}


ONLY_FOR_MODELS = {
    "--votes": "3",
    "--temperature": "0.5",
    "--revision": "x",
    "--model": "m",
    "--min-words": "3",
    "--concurrency": "3",
    "--timeout": "3",
    "--prompt": "plain",
    "--cache": "c.sqlite",
    "--prices": "1 1 1",
}


@pytest.mark.parametrize("option", ONLY_FOR_MODELS)
@pytest.mark.parametrize("what", ["--judge flag-none", "--predictions x.jsonl"])
def test_an_option_that_only_a_model_has_is_an_error(what: str, option: str, data: Path, run) -> None:
    values = ONLY_FOR_MODELS[option].split()
    code, out, err = run("process", "--data", data, *what.split(), option, *values)
    assert (code, out) == (2, "")
    assert f"{option} does not go with {what.removesuffix(' x.jsonl')}: no model is asked; remove it" in err


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_call_is_an_error(name: str, data: Path, tmp_path: Path, run, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.jsonl").touch()
    for name_of_file, id in (("first", "a-0"), ("second", "a-1")):
        answers_of(tmp_path, f"{name_of_file}.jsonl", {id: 0})
    arguments, message = CALLS[name]
    code, out, err = run("process", *(str(data) if part == "DATA" else part for part in arguments), "--json")
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_a_data_set_of_the_hub_without_a_network() -> None:
    pytest.importorskip("datasets")
    command = ("bench", "process", "--data", "no/such-set", "--judge", "flag-all")
    code, said = finished(start(*command, HF_HUB_OFFLINE="1", COLUMNS="300"))
    assert code == 2
    assert "no/such-set: no such file, and the Hugging Face Hub cannot be reached" in said
    assert "Traceback" not in said


# --- Which rows ------------------------------------------------------------------------------------------------------


def test_a_limit_draws_from_each_source_and_keeps_what_a_smaller_one_had(tmp_path: Path) -> None:
    for name in "ab":
        sorted_rows = [data_row(f"{name}-{i}", 0 if i < 50 else -1, correct=i >= 25) for i in range(100)]
        write_jsonl(tmp_path / f"{name}.jsonl", sorted_rows)
    sources = [str(tmp_path / f"{name}.jsonl") for name in "ab"]
    ids = [
        {row.problem.id for row in load_rows("flawed-positive", sources, limit).counting} for limit in (10, 20, 75, 500)
    ]
    assert [len(chosen) for chosen in ids] == [20, 40, 150, 150]
    assert ids[0] < ids[1] < ids[2]
    assert len({id for id in ids[0] if id.startswith("a")}) == 10
    rows = load_rows("process", sources, 20)
    assert Counter(rows.subsets) == {"a": 20, "b": 20}
    assert 0 < sum(row.correct for row in rows.counting) < 40, "not the beginning of a sorted file"
    order = [row.problem.id for row in rows.counting]
    assert order == sorted(order, key=lambda id: (id[0], int(id[2:]))), "in the order of the data"


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        (["gsm8k-12", "gsm8k-3"], ["gsm8k", "gsm8k"]),
        (["olympiad-bench-1", "math-2"], ["olympiad-bench", "math"]),
        (["set-922c6f57", "set-12345678"], ["file", "file"]),
        (["1", "2"], ["file", "file"]),
    ],
)
def test_the_subset_comes_from_the_id(ids: list[str], names: list[str]) -> None:
    rows = [LabelledSolution(Problem(id, "?", "", source="file"), ("s",), None, True) for id in ids]
    assert subset_names(rows) == names


def test_parquet(data: Path, tmp_path: Path, score) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "data.parquet")
    steps = [{"id": row["id"], "error_step": row["label"] if row["label"] >= 0 else None} for row in ROWS]
    parquet.write_table(pyarrow.Table.from_pylist(steps), tmp_path / "said.parquet")
    found = score("process", "--data", tmp_path / "data.parquet", "--predictions", tmp_path / "said.parquet")
    assert found["mean_f1"] == found["pooled_f1"] == 1


def test_predictions_for_the_miniature_need_no_torch(tmp_path: Path) -> None:
    rows = load_rows("flawed-positive", ["miniature:critic-test"]).counting
    answers = predictions(tmp_path, [{"id": row.problem.id, "error_step": row.error_step} for row in rows])
    command = ("bench", "flawed-positive", "--data", "miniature:critic-test", "--predictions", answers, "--json")
    imported, printed = imported_packages("-m", "fapo.cli", *command)
    found = json.loads(printed)
    assert (found["n"], found["precision"], found["recall"], found["f1"]) == (len(rows), 1, 1, 1)
    assert not imported & {"torch", "transformers", "datasets"}


# --- Judges ----------------------------------------------------------------------------------------------------------


def label_of(body: Mapping[str, Any]) -> int:
    """Return the label of the solution in a request."""
    text = body["messages"][-1]["content"]
    return next(int(row["label"]) for row in ROWS if f"Problem {row['id']}?" in text)


def knows(body: dict[str, Any], index: int) -> Reply:
    """Reply like a judge that is always correct."""
    return Reply(f"I have read it. \\boxed{{{label_of(body)}}}")


def test_a_served_judge_and_its_answers_on_file(data: Path, tmp_path: Path, score) -> None:
    out = tmp_path / "runs" / "out.jsonl"
    with chat_server(knows) as one, chat_server(knows) as two:
        call = ["--data", data, "--judge", one.url, "--judge", two.url, "--model", "m"]
        call += ["--out", out, "--max-tokens", 99]
        found = score("flawed-positive", *call)
        assert (found["n"], found["f1"], found["invalid_rate"]) == (6, 1, 0)
        asked = one.requests + two.requests
        assert len(asked) == 6 and one.requests and two.requests
        assert all((body["model"], body["temperature"], body["max_tokens"]) == ("m", 0, 99) for body in asked)
        assert all("none is given" in body["messages"][-1]["content"] for body in asked), "no reference in this data"
        assert found["conventions"]["reference"].startswith("not given to the judge in 6 rows")

        assert score("process", *call)["mean_f1"] == 1
        assert len(one.requests + two.requests) == 8, "only what flawed-positive did not count was asked"
    rows = {row["id"]: row for row in read_jsonl(out)}
    assert rows.keys() == {row["id"] for row in ROWS}
    assert (rows["a-0"]["error_step"], rows["a-2"]["error_step"], rows["a-0"]["status"]) == (1, None, "ok")
    assert rows["a-0"]["critique"] == "I have read it. \\boxed{1}"
    again = score("process", "--data", data, "--predictions", out)
    assert again["mean_f1"] == 1
    seconds = [row["critique_seconds"] for row in rows.values()]
    assert all(seconds) and again["critique_seconds"] == pytest.approx(sum(seconds) / len(seconds))


def test_going_on_after_failures(data: Path, tmp_path: Path, score) -> None:
    """Failed critiques are requested again, unparsable ones are not."""
    out = tmp_path / "out.jsonl"

    def moody(body: dict[str, Any], index: int) -> Reply:
        text = body["messages"][-1]["content"]
        if "Problem a-0?" in text:
            return Reply(status=400, body=b'{"error": {"message": "too long"}}')
        return Reply("no idea") if "Problem a-1?" in text else knows(body, index)

    with chat_server(moody) as server:
        call = ["--data", data, "--judge", server.url, "--model", "m", "--out", out]
        found = score("process", *call)
        assert (found["num_failed"], found["num_unparsable"], found["invalid_rate"]) == (1, 1, 2 / 8)
    (failed,) = [row for row in read_jsonl(out) if row["status"] == "failed"]
    assert "too long" in failed["reason"]
    with chat_server(knows) as server:
        found = score("process", *call[:2], "--judge", server.url, *call[4:])
        assert [label_of(body) for body in server.requests] == [1], "a-0"
        assert (found["num_failed"], found["num_unparsable"]) == (0, 1)
        assert [row["id"] for row in read_jsonl(out)] == [row["id"] for row in ROWS], "in the order of the data"
        again = score("process", *call[:2], "--judge", server.url, *call[4:], "--no-cache")
        assert again["num_unparsable"] == 0
        assert len(server.requests) == 1 + 8, "asked anew"


def test_without_an_output_file_the_cache_lies_in_the_current_folder(data: Path, tmp_path: Path, run, score) -> None:
    """Votes are different responses there, too, and nothing is paid twice, also after a run that failed."""
    files = {"data.jsonl", "fapo.cache.sqlite"}
    call = ("process", "--data", data, "--model", "m", "--votes", 3, "--judge")
    with chat_server(Reply(status=400, body=b'{"error": {"message": "too long"}}')) as server:
        assert run(*call, server.url)[0] == 2, "no response, so nothing to keep"
    half = [Reply(status=400, body=b"{}"), None]
    with chat_server(lambda body, index: half[index % 2] or knows(body, index)) as server:
        found = score(*call, server.url)
        assert found["usage"]["requests"] == 12 and found["cache"] == "fapo.cache.sqlite"
    assert {path.name for path in tmp_path.iterdir()} == files
    with chat_server(knows) as server:
        found = score(*call, server.url)
        assert (found["usage"]["requests"], found["usage"]["from_cache"], len(server.requests)) == (12, 12, 12)
        code, _, err = run(*call, server.url)
        assert (code, len(server.requests)) == (0, 12)
        assert "critiques: fapo.cache.sqlite, which had 24 of 24 already; --no-cache asks the judge again" in err
        for changed in (["--temperature", 0.5], ["--revision", "new"], ["--no-cache"]):
            assert score(*call, server.url, *changed)["usage"]["requests"] == 24
    assert {path.name for path in tmp_path.iterdir()} == files


def test_answers_of_another_judge_are_not_mixed_in(data: Path, tmp_path: Path, run) -> None:
    """Each is judged for itself at first; then all of them get the same response from the cache."""
    judges = [["--model", "m"], ["--model", "n"], ["--model", "m", "--max-tokens", 9]]
    judges.append(["--model", "m", "--template", "compact"])
    with chat_server(knows) as server:
        call = ["process", "--data", data, "--judge", server.url, "--cache", tmp_path / "j.sqlite"]
        for _ in range(2):
            for judge in judges:
                assert run(*call, *judge)[0] == 0
        assert len(server.requests) == 4 * 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.jsonl", "j.sqlite"]


def test_a_server_that_only_fails_ends_the_run(tmp_path: Path, run) -> None:
    write_jsonl(tmp_path / "data.jsonl", [data_row(f"a-{i}", -1) for i in range(200)])
    with chat_server(Reply(status=401, body=b'{"error": {"message": "wrong key"}}')) as server:
        call = ["process", "--data", tmp_path / "data.jsonl", "--judge", server.url, "--model", "m", "--concurrency", 4]
        code, out, err = run(*call, "--json")
        assert (code, out) == (2, "")
        assert "the judge is down: 8 of the last 8 requests failed, 8 of them with: HTTP 401" in err
        assert "wrong key" in err
        assert len(server.requests) < 50


def test_a_judge_that_fails_often_is_scored_all_the_same_with_exit_code_3(tmp_path: Path, run) -> None:
    write_jsonl(tmp_path / "data.jsonl", [data_row(f"a-{i}", -1) for i in range(40)])
    refused = Reply(status=400, body=b'{"error": {"message": "too long"}}')
    with chat_server(lambda body, index: refused if index else Reply("\\boxed{-1}")) as server:
        call = ["process", "--data", tmp_path / "data.jsonl", "--judge", server.url, "--model", "m", "--concurrency", 1]
        code, out, err = run(*call, "--json")
    found = json.loads(out)
    assert (found["num_failed"], found["subsets"]["a"]["correct_acc"]) == (39, 1 / 40)
    assert code == 3
    assert "no verdict in 39 of 40 judgements (98%)" in err
    assert "HTTP 400: too long" in err


def test_a_judge_that_always_says_the_same_is_remarked_on(tmp_path: Path, run) -> None:
    write_jsonl(tmp_path / "data.jsonl", [data_row(f"a-{i}", i % 2 - 1) for i in range(8)])
    with chat_server(Reply("\\boxed{-1}")) as server:
        call = ["process", "--data", tmp_path / "data.jsonl", "--judge", server.url, "--model", "m"]
        code, _, err = run(*call)
    assert code == 0
    assert 'all 8 verdicts are the same, "no error found"' in err
    assert run("process", "--data", tmp_path / "data.jsonl", "--judge", "flag-none")[2] == "", "a rule is meant to"


def test_votes(data: Path, score) -> None:
    def two_of_three(body: dict[str, Any], index: int) -> Reply:
        seen[label_of(body), body["messages"][-1]["content"]] += 1
        return knows(body, index) if seen[label_of(body), body["messages"][-1]["content"]] != 2 else Reply("\\boxed{0}")

    seen: Counter[tuple[int, str]] = Counter()
    with chat_server(two_of_three) as server:
        call = ["--data", data, "--judge", server.url, "--model", "m", "--votes", 3, "--temperature", 0.6]
        found = score("process", *call)
        assert len(server.requests) == 24
        assert {body["temperature"] for body in server.requests} == {0.6}
    assert found["mean_f1"] == 1
    assert "plurality of 3 votes" in found["answers"]


def test_a_yes_no_judge(data: Path, tmp_path: Path, run, score) -> None:
    def says(body: dict[str, Any], index: int) -> Reply:
        return Reply(f"\\boxed{{{'no' if label_of(body) == -1 else 'yes'}}}")

    out = tmp_path / "out.jsonl"
    with chat_server(says) as server:
        call = ["--data", data, "--judge", server.url, "--model", "m", "--template", "yes_no"]
        assert score("flawed-positive", *call, "--out", out)["f1"] == 1
        assert score("flawed-positive", *call, "--out", out)["f1"] == 1
        assert len(server.requests) == 6
        code, _, err = run("process", *call)
        assert (code, "names no step, which `process` needs; use locate" in err) == (2, True)
        assert len(server.requests) == 6
    rows = list(read_jsonl(out))
    assert [row["error_step"] for row in rows] == [None] * 6, "it names no step, so none may be scored"
    assert [row["flawed"] for row in rows].count(True) == 3
    code, _, err = run("process", "--data", data, "--predictions", out)
    assert (code, "says flawed but not where" in err) == (2, True)
    assert score("flawed-positive", "--data", data, "--predictions", out)["f1"] == 1


@pytest.mark.slow
def test_the_shipped_genrm_in_this_process(tmp_path: Path, score) -> None:
    pytest.importorskip("torch")
    call = ["flawed-positive", "--data", "miniature:critic-test", "--limit", 48, "--template", "compact"]
    judge = ["--judge", "local:miniature:genrm", "--max-tokens", 64, "--concurrency", 30]
    found = score(*call, *judge, "--out", tmp_path / "out.jsonl")
    assert found["n"] == 48
    assert found["invalid_rate"] < 0.2
    assert found["precision"] > found["num_flawed"] / 48, "better than flagging all"
    assert "reference" not in found["conventions"], "here the judge is told the reference"
    rows = list(read_jsonl(tmp_path / "out.jsonl"))
    assert len(rows) == 48 and all(row["critique"] for row in rows)


def test_settings_are_part_of_a_judges_name(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("{{problem}} {{#steps}}{{index}}{{step}}{{/steps}}", encoding="utf-8")
    mine = judge_name(command_line_judge(["http://a"], "m", template=str(tmp_path / "mine.txt")))
    (tmp_path / "mine.txt").write_text("{{problem}}! {{#steps}}{{index}}{{step}}{{/steps}}", encoding="utf-8")
    assert judge_name(command_line_judge(["http://a"], "m", template=str(tmp_path / "mine.txt"))) != mine, (
        "the prompt itself counts"
    )
    assert judge_name(command_line_judge(["http://a"], "m")) == judge_name(
        command_line_judge(["http://b", "http://c"], "m")
    )
    assert judge_name(command_line_judge(["http://a"], "m", min_words=3)) != judge_name(
        command_line_judge(["http://a"], "m", min_words=4)
    )


def test_solutions_of_few_words_are_flagged_unread(data: Path, tmp_path: Path, score) -> None:
    write_jsonl(data, [*ROWS, data_row("bare", 0) | {"steps": ["\\boxed{2}"]}])
    with chat_server(knows) as server:
        call = ["--data", data, "--judge", server.url, "--model", "m", "--out", tmp_path / "out.jsonl"]
        assert score("flawed-positive", *call, "--min-words", 1)["f1"] == 1
        assert len(server.requests) == 6
    (bare,) = [row for row in read_jsonl(tmp_path / "out.jsonl") if row["id"] == "bare"]
    assert (bare["flawed"], bare["error_step"], bare["critique"]) == (True, None, "")
    shown = score("process", "--data", data, "--predictions", tmp_path / "out.jsonl")
    assert shown["num_unparsable"] == 0, "a flag without a step counts, as no step"
    assert "0 words outside the box, min_words is 1" in bare["reason"]


def test_results_by_length_are_those_of_the_rows_in_a_range(tmp_path: Path, score) -> None:
    lengths = {"a-0": 500, "a-1": 501, "a-2": 1000, "a-3": 2000, "a-4": 2001}
    rows = [
        data_row(id, 0 if length % 2 else -1) | {"steps": ["x" * (length - 1), "y"]} for id, length in lengths.items()
    ]
    write_jsonl(tmp_path / "data.jsonl", rows)
    found = score("flawed-positive", "--data", tmp_path / "data.jsonl", "--judge", "flag-all")["by_length"]
    assert {name: (part["n"], part["num_flawed"]) for name, part in found.items()} == {
        "0-500": (1, 0),
        "501-1000": (2, 1),
        "1001-2000": (1, 0),
        "2001+": (1, 1),
    }


# --- Several judges --------------------------------------------------------------------------------------------------


def answers_of(
    folder: Path, name: str, steps: Mapping[str, int | None], judge: str = "", tokens: int = 0, seconds: Any = 0
) -> Path:
    same = {"judge": judge, "critique_tokens": tokens, "critique_seconds": seconds, "reason": ""}
    rows = [{"id": id, "error_step": step, **same} for id, step in steps.items()]
    write_jsonl(folder / name, rows)
    return folder / name


LABELS = {row["id"]: row["label"] for row in ROWS}


def test_files_of_predictions_are_compared_on_their_common_rows(data: Path, tmp_path: Path, score) -> None:
    exact = answers_of(tmp_path, "exact.jsonl", LABELS, "model, prompt one", 10)
    later = {id: min(label + 1, 2) if label >= 0 else label for id, label in LABELS.items() if id != "a-3"}
    late = answers_of(tmp_path, "late.jsonl", later, "model, prompt two", 30)
    found = score("process", "--data", data, "--predictions", exact, late)
    assert (found["num_rows"], found["num_left_out"], found["num_flawed"]) == (7, 1, 5)
    assert list(found["judges"]) == ["exact", "late", "flag-all", "flag-none"]
    numbers = {name: {key: e["value"] for key, e in j["numbers"].items()} for name, j in found["judges"].items()}
    assert numbers["exact"] == dict.fromkeys(numbers["exact"], 1.0)
    assert (numbers["late"]["error_acc"], numbers["late"]["correct_acc"]) == (2 / 5, 1.0)
    assert (numbers["late"]["youden_j"], numbers["late"]["balanced_f1"]) == (1, 1), "every row is flagged rightly"
    assert (numbers["flag-all"]["youden_j"], numbers["flag-none"]["youden_j"]) == (0, 0)
    assert (numbers["flag-all"]["error_acc"], numbers["flag-none"]["correct_acc"]) == (2 / 5, 1.0)
    for name in ("late", "flag-all", "flag-none"):
        judge = found["judges"][name]
        for key, difference in judge["differences"].items():
            assert difference["value"] == pytest.approx(numbers[name][key] - numbers["exact"][key])
            low, high = difference["interval"]
            assert low - 1e-9 <= difference["value"] <= high + 1e-9
    assert (found["judges"]["exact"]["critique_tokens"], found["judges"]["late"]["critique_tokens"]) == (10, 30)
    assert found["judges"]["flag-all"]["critique_tokens"] is None
    (spread,) = found["sensitivity"]
    assert (spread["model"], spread["names"], spread["disagreement"]["value"]) == ("model", ["exact", "late"], 0)
    assert spread["ranges"]["error_acc"] == [2 / 5, 1]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(1.25, "1.25"), (0, "-"), (-1, "-"), (True, "-"), ("2", "-"), (None, "-"), (1e999, "-")]
)
def test_seconds_of_a_critique_are_shown_where_they_are_known(seconds, shown, data: Path, tmp_path: Path, run) -> None:
    files = [answers_of(tmp_path, f"{name}.jsonl", LABELS, "", 7, seconds) for name in ("one", "two")]
    table = tmp_path / "table.md"
    assert run("process", "--data", data, "--predictions", *files, "--table", table)[0] == 0
    assert f"| one | 0.0 % | 7 | {shown} |" in table.read_text()
    code, out, _ = run("process", "--data", data, "--predictions", files[0])
    assert code == 0 and ("1.25 s from request to end" in out) == (shown != "-")


def test_one_file_has_the_same_numbers_alone_and_compared(data: Path, tmp_path: Path, score) -> None:
    answers = predictions(tmp_path, [*ANSWERS, {"id": "b-2", "error_step": 0}])
    other = answers_of(tmp_path, "other.jsonl", LABELS)
    for benchmark, names in (
        ("flawed-positive", ("precision", "recall", "f1", "youden_j", "balanced_accuracy", "balanced_f1")),
        ("process", ("mean_f1", "pooled_f1", "youden_j", "balanced_accuracy", "balanced_f1")),
    ):
        alone = score(benchmark, "--data", data, "--predictions", answers)
        compared = score(benchmark, "--data", data, "--predictions", answers, "--predictions", other)
        for name in names:
            assert compared["judges"]["predictions"]["numbers"][name]["value"] == pytest.approx(alone[name]), name


@given(st.lists(st.tuples(st.sampled_from([-1, 0, 1]), st.sampled_from([None, 0, 1])), min_size=1, max_size=12))
@settings(max_examples=20, deadline=None)
def test_a_judge_does_not_differ_from_itself(cases: list[tuple[int, int | None]]) -> None:
    solutions = tuple(
        solution(f"a-{i}", None if label < 0 else label, f"{i // 2}?") for i, (label, _) in enumerate(cases)
    )
    verdicts = [Verdict.from_step(step) for _, step in cases]
    contexts = [Context(["data"], name, name, name, verdicts) for name in ("one", "other")]
    rows = Rows(solutions, ("a",) * len(solutions), {})
    for benchmark in ("flawed-positive", "process"):
        found = compare_judges(benchmark, rows, contexts)
        for difference in found.judges["other"].differences.values():
            assert math.isnan(difference.value) or (difference.value, *difference.interval) == (0, 0, 0)


def test_a_judge_of_a_comparison_has_the_intervals_that_it_has_alone(tmp_path: Path, score) -> None:
    rows = [data_row(f"a-{i}", i % 2 - 1) for i in range(20)]
    write_jsonl(tmp_path / "data.jsonl", rows)
    right = {row["id"]: row["label"] for row in rows}
    files = [answers_of(tmp_path, f"{name}.jsonl", steps) for name, steps in (("a", right), ("b", right | {"a-1": -1}))]
    for benchmark, names in (("flawed-positive", ("precision", "recall", "f1")), ("process", ("pooled_f1", "mean_f1"))):
        compared = score(benchmark, "--data", tmp_path / "data.jsonl", "--predictions", *files)["judges"]
        for file in files:  # one is always right, and one on the correct rows
            alone = score(benchmark, "--data", tmp_path / "data.jsonl", "--predictions", file)
            numbers = compared[file.stem]["numbers"]
            for name in ("youden_j", *(names if file.stem == "a" else ())):
                interval = numbers[name]["interval"]
                assert interval == alone[f"{name}_interval"] and interval[0] < 1
            low, high = alone["youden_j_interval"]
            assert numbers["balanced_accuracy"]["interval"] == [(1 + low) / 2, (1 + high) / 2]
        assert compared["flag-none"]["numbers"]["youden_j"]["interval"] == [0, 0], "it reads nothing, whatever the rows"


def test_a_row_without_a_verdict_is_wrong_in_every_score_of_steps(tmp_path: Path, score) -> None:
    rows = [data_row(f"a-{i}", i % 2 - 1) for i in range(8)]
    write_jsonl(tmp_path / "data.jsonl", rows)
    answers = [{"id": row["id"], "error_step": row["label"], "status": "ok"} for row in rows]
    answers[1] |= {"status": "unparsable"}
    write_jsonl(tmp_path / "one.jsonl", answers)
    write_jsonl(tmp_path / "two.jsonl", answers)
    files = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    options = ("process", "--data", tmp_path / "data.jsonl", "--predictions")
    compared, alone = score(*options, *files)["judges"]["one"], score(*options, files[0])
    assert compared["numbers"]["youden_j"]["value"] == alone["youden_j"] == 3 / 4


def test_paired_differences_are_narrower_than_two_intervals(tmp_path: Path, score) -> None:
    rows = [data_row(f"a-{i}", i % 2 - 1) for i in range(60)]
    write_jsonl(tmp_path / "data.jsonl", rows)
    # both miss the same third of the flawed rows; the second one also flags one row of 20 that is correct
    first = {row["id"]: None if i % 6 == 1 else row["label"] for i, row in enumerate(rows)}
    second = first | {f"a-{i}": 0 for i in range(0, 60, 20)}
    files = [answers_of(tmp_path, f"{name}.jsonl", steps) for name, steps in (("one", first), ("two", second))]
    found = score("flawed-positive", "--data", tmp_path / "data.jsonl", "--predictions", *files)["judges"]
    widths = [high - low for low, high in (found[name]["numbers"]["youden_j"]["interval"] for name in ("one", "two"))]
    low, high = found["two"]["differences"]["youden_j"]["interval"]
    assert high - low < 0.75 * min(widths)
    assert found["two"]["differences"]["youden_j"]["value"] == pytest.approx(-3 / 30)
    assert low < high <= 0


EVIL = "<b>evil</b> | `x`\n# model, prompt"


def test_tables_in_markdown_and_html_escape_names(data: Path, tmp_path: Path, run) -> None:
    files = [answers_of(tmp_path, f"{name}.jsonl", LABELS, EVIL, 5) for name in ("one", "two")]
    written = {}
    for suffix in ("md", "html"):
        table = tmp_path / f"table.{suffix}"
        code, out, err = run("process", "--data", data, "--predictions", *files, "--table", table)
        assert code == 0, err
        written[suffix] = table.read_text()
        assert "flag-none" in out and "Differences to one" in out and "Spread of a model" in out
    page = written["html"]
    assert "<b>evil" not in page and "&lt;b&gt;evil" in page and page.count("<tr>") == 5 + 4 + 5 + 2
    cells = [re.findall(r"(?<!\\)\|", line) for line in written["md"].splitlines() if line.startswith("|")]
    assert {len(bars) for bars in cells} == {6, 4, 5}
    assert "<b>evil" not in written["md"].replace("\\<", "")


def test_a_comparison_fits_80_columns(data: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    names = ("one", "a_file_with_a_long_name")
    files = [answers_of(tmp_path, f"{name}.jsonl", LABELS, EVIL, 1234, 5678.9) for name in names]
    assert fapo(monkeypatch, "bench", "process", "--data", data, "--predictions", *files, columns=80) == 0
    out = capsys.readouterr().out
    for part in (", 100.0]", ", 1.00]", " 1234 ", " 5678.90 ", " a_file_with_a_long_name "):
        assert part in out, part
    assert "…" not in out
    assert fapo(monkeypatch, "bench", "process", "--data", data, "--predictions", files[0], columns=80) == 0
    out += capsys.readouterr().out
    assert ", 100.0]" in out and "balanced accuracy" in out and "…" not in out
    assert "flawed rows flagged with a step: 5; exact 100.0 %, at most 1 off 100.0 %" in out
    later = {id: min(label + 1, 2) if label >= 0 else label for id, label in LABELS.items()}
    late = answers_of(tmp_path, "late.jsonl", later)
    assert fapo(monkeypatch, "bench", "process", "--data", data, "--predictions", late, columns=80) == 0
    assert "with a step: 5; exact 40.0 %, at most 1 off 100.0 %" in capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80


def test_numbers_by_the_size_of_a_solution_fit_80_columns(tmp_path: Path, monkeypatch, capsys) -> None:
    sizes = [1, 1, 5, 5, 8, 8, 15, 15]  # pairs of a flawed and a correct solution; each step has 400 characters
    rows = [data_row(f"a-{i}", i % 2 - 1) | {"steps": ["x" * 400] * size} for i, size in enumerate(sizes)]
    write_jsonl(tmp_path / "data.jsonl", rows)
    steps = {row["id"]: None if row["id"] in ("a-4", "a-5") else row["label"] for row in rows}
    files = [answers_of(tmp_path, f"{name}.jsonl", steps) for name in ("one", "a_file_with_a_long_name")]
    data = ("bench", "process", "--data", tmp_path / "data.jsonl")
    assert fapo(monkeypatch, *data, "--predictions", files[0], columns=80) == 0
    alone = capsys.readouterr().out
    cells = [
        re.findall(r"[^│┃ ][^│┃]*[^│┃ ]|[^│┃ ]", line) for line in alone.splitlines() if re.search(r"steps +│", line)
    ]
    assert [cell[0] for cell in cells] == ["1-3 steps", "4-6 steps", "7-10 steps", "11+ steps"]
    assert cells[1][1:] == ["2", "1", "100.0 %", "100.0 %", "100.0 %", "1.00"]
    assert cells[2][1:] == ["2", "1", "0.0 %", "0.0 %", "0.0 %", "0.00"]
    assert "0-500 characters │" in alone and "2001+ characters │" in alone
    assert fapo(monkeypatch, *data, "--predictions", *files, "--table", tmp_path / "t.html", columns=80) == 0
    both = capsys.readouterr().out
    assert max(map(len, (alone + both).splitlines())) <= 80 and "…" not in alone + both
    page = (tmp_path / "t.html").read_text()
    heads = "".join(f'<th scope="col">{size} n=2</th>' for size in ("1-3", "4-6", "7-10", "11+"))
    assert f'<caption>J by number of steps</caption>\n<thead><tr><th scope="col">judge</th>{heads}' in page
    assert "<td>one</td><td>1.00</td><td>1.00</td><td>0.00</td><td>1.00</td>" in page


def test_f1_is_drawn_against_tokens(data: Path, tmp_path: Path, run) -> None:
    files = [answers_of(tmp_path, f"{name}.jsonl", LABELS, tokens=50) for name in ("one", "two")]
    (tmp_path / "disk").mkdir()
    for suffix, first in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        plot, target = tmp_path / f"plot.{suffix}", tmp_path / "disk" / suffix
        plot.symlink_to(target)
        code, _, err = run("process", "--data", data, "--predictions", *files, "--plot", plot)
        assert code == 0, err
        assert target.read_bytes().startswith(first)
        assert plot.readlink() == target, "the link stays"


def test_prompts_of_one_judge_are_compared_on_the_same_rows(data: Path, tmp_path: Path, run, score) -> None:
    careful = tmp_path / "careful.txt"
    careful.write_text("Careful!\n{{problem}}\n{{#steps}}{{index}}: {{step}}\n{{/steps}}Answer in \\boxed{}.")

    def judge(body: dict[str, Any], index: int) -> Reply:
        prompt = body["messages"][-1]["content"]
        return Reply("\\boxed{-1}" if prompt.startswith("Careful!") else "\\boxed{0}")

    with chat_server(judge) as server:
        call: list[Any] = ["flawed-positive", "--data", data, "--judge", server.url, "--model", "m"]
        call += ["--template", "locate", "--template", careful, "--out", tmp_path / "out.jsonl"]
        found = score(*call)
        assert len(server.requests) == 12
        assert run(*call)[0] == 0
        assert len(server.requests) == 12, "both prompts share one cache"
    assert list(found["judges"]) == ["locate", str(careful), "flag-all", "flag-none"]
    for name, rule in (("locate", "flag-all"), (str(careful), "flag-none")):
        numbers = [found["judges"][judge]["numbers"] for judge in (name, rule)]
        assert [number["value"] for number in numbers[0].values()] == [n["value"] for n in numbers[1].values()]
    assert found["sensitivity"][0]["disagreement"]["value"] == 1
    files = [tmp_path / "out.locate.jsonl", tmp_path / "out.careful.jsonl"]
    again = score("flawed-positive", "--data", data, "--predictions", *files)
    judges = [list(of_one["judges"].values()) for of_one in (found, again)]
    assert judges[0] == judges[1]
