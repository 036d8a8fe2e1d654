"""Scores of the predictions of real judges, counted by hand; the committed predictions can be read."""

from __future__ import annotations

import pytest

from experiments.real_model.score import read_rows, score
from fapo.data.jsonl import read_jsonl
from fapo.data.steps import split_steps
from fapo.judge.template import load_template
from fapo.types import LabelledSolution, Problem
from tests.support.paths import ROOT

RESULTS = sorted((ROOT / "experiments/real_model/results").glob("*.jsonl"))


def test_numbers_counted_by_hand() -> None:
    labels = {"a": 1, "b": 0, "c": None, "d": None, "unused": 2}
    solutions = {id: LabelledSolution(Problem(id, "Q", ""), ("x", "y", "z"), step, True) for id, step in labels.items()}
    row = {"status": "ok", "flawed": True, "error_step": 1, "critique": "c", "critique_tokens": 10, "reason": ""}
    cut = {"status": "unparsable", "flawed": None, "error_step": None, "reason": "cut off at the length limit"}
    rows = [
        row | {"id": "a"},
        row | {"id": "b"},
        row | {"id": "c", "flawed": False, "error_step": None},
        row | cut | {"id": "d", "critique_tokens": 30},
    ]
    found = score(rows, solutions)
    assert found["rows"] == "4 (2 with an error)"
    assert found["valid"].startswith("75.0 %")
    assert found["verdicts"] == "1: 2, -1: 1"
    assert found["cut off"] == "1"
    assert found["labelled with an error"].startswith("50.0 %")
    assert found["flagged"].startswith("66.7 %")
    assert found["flag and label agree"].startswith("100.0 %")
    assert found["kappa"] == "1.00", "of the three valid rows"
    assert (found["flagged with an error"][:7], found["flagged without"][:5]) == ("100.0 %", "0.0 %")
    assert found["J"].startswith(
        "0.50 ["
    )  # recall 1; the false positive rate is 1/2, as the row that was cut off is wrong
    assert (found["precision"][:6], found["recall"][:7]) == ("66.7 %", "100.0 %")
    assert found["first wrong step named"].startswith("50.0 %")
    assert found["F1 of ProcessBench"].startswith("50.0 %")
    assert (found["tokens"], found["critique length"]) == ("15", "10")


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_committed_predictions_name_their_judge_and_are_small(path) -> None:
    rows = list(read_jsonl(path))
    assert len({row["id"] for row in rows}) == len(rows) >= 12
    assert len({row["judge"] for row in rows}) == 1
    assert path.stat().st_size < 300_000


def test_the_labels_of_the_audit_cover_its_correct_samples() -> None:
    folder = ROOT / "experiments/real_model/labels"
    samples = list(read_jsonl(folder / "qwen_0.5b_gsm8k_samples.jsonl"))
    labels = {row["id"]: row for row in read_jsonl(folder / "qwen_0.5b_gsm8k_read.jsonl")}
    verdicts = {row["id"] for row in read_jsonl(folder / "qwen_1.5b_on_qwen_0.5b_gsm8k.jsonl")}
    assert len({row["id"] for row in samples}) == len(samples) == 60
    assert labels.keys() == verdicts == {row["id"] for row in samples if row["correct"]}
    for sample in samples:
        if label := labels.get(sample["id"]):
            assert label["reason"]
            assert label["steps"] == [step.strip() for step in split_steps(sample["response"])]


def test_the_prompts_that_were_tried_are_templates() -> None:
    folder = ROOT / "experiments/real_model/prompts"
    names = {path.stem for path in folder.glob("*.txt")}
    assert {load_template(folder / f"{name}.txt").kind for name in names} == {"locate"}
    assert {path.stem.removeprefix("qwen_0.5b_") for path in RESULTS} >= names


def test_labels_exported_from_the_review_page_are_those_of_the_readers_samples() -> None:
    folder = ROOT / "experiments/real_model/labels"
    rows = read_rows(folder / "qwen_0.5b_gsm8k_400_review.json")
    steps = {row["id"]: len(row["steps"]) for row in read_jsonl(folder / "qwen_0.5b_gsm8k_400_reader_a.jsonl")}
    assert {row["id"] for row in rows} == steps.keys() and len(rows) == 107
    assert all(row["flawed"] is (row["error_step"] is not None) for row in rows)
    assert all(row["error_step"] < steps[row["id"]] for row in rows if row["flawed"])
