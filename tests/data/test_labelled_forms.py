"""Rows in the forms of public data sets, written for these tests, are read as labelled solutions and as problems."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fapo.data.jsonl import write_jsonl
from fapo.data.labelled_forms import REDUNDANCY
from fapo.data.load import load_labelled, load_problems
from fapo.errors import DataError
from fapo.evaluation.judge_benchmarks.rows import load_rows
from fapo.rewards.verify import check_answers

STEPS = ["Two boxes hold 6 pears.", "Three more make 10.", "So it is 10."]


def grben(id: str = "physics-1", label: Any = 2, correct: bool = False) -> dict[str, Any]:
    """Return a row of GR-Ben: like ProcessBench, with labels that count from 1."""
    return {
        "id": id,
        "domain": id.partition("-")[0],
        "generator": "small-model",
        "problem": "How many pears?",
        "steps": STEPS,
        "label": label,
        "final_answer_correct": correct,
        "error_type": None if label == -1 else "Calculation error",
        "reason": None,
    }


def prmbench(kind: str, errors: Any, idx: str = "t1") -> dict[str, Any]:
    """Return a row of PRMBench: an original solution and a modified one."""
    return {
        "idx": idx,
        "original_question": "How many pears?",
        "original_process": ["Two boxes hold 6 pears.", "So it is 6."],
        "modified_question": "How many pears?",
        "modified_process": STEPS,
        "modified_steps": errors,
        "error_steps": errors,
        "reason": "the second step adds wrongly",
        "classification": kind,
    }


def hard2verify(labels: Any, id: str = "q1") -> dict[str, Any]:
    """Return a decrypted row of Hard2Verify: a label for each step, 0 for a wrong one."""
    return {
        "unique_id": id,
        "question": "How many pears?",
        "model_response_by_step": STEPS,
        "human_labels": labels,
        "human_labels_first_error_idx": -1,
        "canary": "c",
    }


def labels_of(path: Path, rows: list[dict[str, Any]]) -> dict[str, int | None]:
    write_jsonl(path, rows)
    return {row.problem.id: row.error_step for row in load_labelled(str(path))}


def test_labels_of_gr_ben_count_from_one(tmp_path: Path) -> None:
    rows = [grben(), grben("physics-2", 1), grben("physics-3", -1, correct=True), grben("computer-science-1", 3)]
    found = labels_of(tmp_path / "GR-BEN.jsonl", rows)
    assert list(found.values()) == [1, 0, None, 2]
    assert load_rows("process", [str(tmp_path / "GR-BEN.jsonl")]).subsets == (*["physics"] * 3, "computer-science")
    assert len(load_rows("flawed-positive", [str(tmp_path / "GR-BEN.jsonl")]).counting) == 1


def test_prmbench_has_an_original_solution_for_each_redundant_one(tmp_path: Path) -> None:
    path = tmp_path / "prmbench.jsonl"
    rows = [prmbench("confidence", [3, 2]), prmbench(REDUNDANCY, [2]), prmbench("multi_solutions", [])]
    found = labels_of(path, rows)
    assert found == {"confidence_t1": 1, "correct_t1": None, f"{REDUNDANCY}_t1": 1, "multi_solutions_t1": None}
    assert [len(row.steps) for row in load_labelled(str(path))] == [3, 2, 3, 3]
    assert [row.problem.text for row in load_labelled(str(path), limit=2)] == ["How many pears?"] * 2


def test_the_first_wrong_step_of_hard2verify(tmp_path: Path) -> None:
    rows = [hard2verify([1, 0, 0]), hard2verify([1, 1, 1], "q2"), hard2verify([0, 1, 1], "q3")]
    assert labels_of(tmp_path / "h2v.jsonl", rows) == {"q1": 1, "q2": None, "q3": 0}
    (first, *_) = load_labelled(str(tmp_path / "h2v.jsonl"))
    assert (first.problem.text, list(first.steps)) == ("How many pears?", STEPS)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (grben(label=0), "label has 0, must be a step from 1, or -1"),
        (grben(label="2"), "label has 2, must be a step"),
        (grben(label=4), "label is 3, must be an integer from -1 to 2"),
        (prmbench("confidence", [0]), "error_steps has 0"),
        (prmbench("confidence", [-1]), "an empty list means no error"),
        (prmbench("confidence", 2), "error_steps, a list of numbers"),
        (prmbench("confidence", [9]), "label is 8, must be an integer from -1 to 2"),
        (hard2verify([1, 0]), "human_labels has 2 labels, must have one for each step"),
        (hard2verify([1, 0, 2]), "must be a list of 0 (wrong) and 1 (correct)"),
        (hard2verify("aGVsbG8="), "the row is encrypted"),
    ],
)
def test_rows_that_do_not_fit_are_errors_with_their_place(row: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        labels_of(tmp_path / "rows.jsonl", [row])
    assert "rows.jsonl:1: " in str(error.value) and complaint in str(error.value)


# The columns of released sets of problems, with questions of our own. GPQA is in test_multiple_choice.
POLICY_SETS = {
    "AIME24, Maxwell-Jia": {"ID": "2024-I-1", "Problem": "2 + 2?", "Solution": "It is 4.", "Answer": 4},
    "AIME24, HuggingFaceH4": {"id": 60, "problem": "2 + 2?", "solution": "\\boxed{4}", "answer": "4", "year": "2024"},
    "AIME25, opencompass": {"question": "2 + 2?", "answer": "4"},
    "MATH500": {"problem": "2 + 2?", "solution": "So \\boxed{4}.", "answer": "4", "level": 1, "unique_id": "a/1.json"},
    "AMC, AI-MO": {"id": 0, "problem": "2 + 2?", "answer": 4.0, "url": "https://example.org"},
    "OlympiadBench": {"id": 1606, "question": "2 + 2?", "solution": ["It is $4$."], "final_answer": ["$4$"]},
}


@pytest.mark.parametrize("name", POLICY_SETS)
def test_released_sets_of_problems_are_read(name: str, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "set.jsonl", [POLICY_SETS[name]])
    (problem,) = load_problems(str(tmp_path / "set.jsonl"))
    assert problem.text == "2 + 2?"
    right, wrong = check_answers([("So \\boxed{4}", problem.reference), ("So \\boxed{5}", problem.reference)])
    assert right.correct and not wrong.correct
