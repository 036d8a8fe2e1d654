"""Multiple-choice questions: letters by seed, choices that the question lists, rows that cannot be used."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fapo.data.jsonl import write_jsonl
from fapo.data.multiple_choice import with_choices
from fapo.data.problems import read_problems
from fapo.errors import DataError

GPQA = {"Question": "Which?", "Correct Answer": "iron", **{f"Incorrect Answer {i}": f"metal {i}" for i in (1, 2, 3)}}
ROWS = {
    "GPQA": GPQA,
    "text": {"question": "Which?", "choices": ["metal 1", "iron", "metal 2", "metal 3"], "answer": "iron"},
    "letter": {"question": "Which?", "options": ["metal 1", "iron", "metal 2", "metal 3"], "answer": "B"},
    "index": {"problem": "Which?", "choices": ["metal 1", "iron", "metal 2", "metal 3"], "answer": 1},
}


@pytest.mark.parametrize("name", ROWS)
def test_choices_are_lettered_by_seed(name: str, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [ROWS[name]])
    letters = Counter()
    for seed in range(40):
        (problem,) = read_problems(tmp_path / "rows.jsonl", seed=seed)
        lines = problem.text.splitlines()
        assert lines[:2] == ["Which?", ""]
        assert sorted(line[3:] for line in lines[2:]) == ["iron", "metal 1", "metal 2", "metal 3"]
        assert [line[:3] for line in lines[2:]] == ["A) ", "B) ", "C) ", "D) "]
        assert f"{problem.reference}) iron" in lines
        letters[problem.reference] += 1
        assert read_problems(tmp_path / "rows.jsonl", seed=seed) == [problem]
    assert letters.keys() == set("ABCD")


def test_other_rows_stay_as_they_are() -> None:
    for row in ({"problem": "Q", "answer": "7"}, {}):
        assert with_choices("here", row, 0) == row


@pytest.mark.parametrize("answer", ["iron", "B", 1])
@pytest.mark.parametrize(
    "listing", ["A) gold\nB) iron", "(A) gold (B) iron", "A. gold\n\nB.  iron", "A: gold, B: iron"]
)
def test_choices_that_the_question_lists_keep_their_order(listing: str, answer: str | int) -> None:
    row = {"question": f"Which?\n{listing}", "choices": ["gold", "iron"], "answer": answer}
    for seed in range(4):
        assert with_choices("here", row, seed) == {"question": f"Which?\n{listing}", "answer": "B"}


@pytest.mark.parametrize(
    "row",
    [
        {"question": "What is 12 - 10, of 1, 2, 3?", "choices": ["1", "2", "3"], "answer": 1},
        {"Question": "12 - 10, not 13", "Correct Answer": "2", "Incorrect Answer 1": "1", "Incorrect Answer 2": "3"},
    ],
)
def test_choices_that_the_question_only_mentions_are_listed(row: dict[str, Any], tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [row])
    (problem,) = read_problems(tmp_path / "rows.jsonl")
    assert f"{problem.reference}) 2" in problem.text.splitlines()


def test_a_question_with_a_lone_surrogate_is_read(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{**GPQA, "Question": "\ud800?"}])
    (problem,) = read_problems(tmp_path / "rows.jsonl")
    assert problem.text.startswith("\ud800?")


def test_an_open_question_may_have_an_empty_list_of_choices() -> None:
    row = {"problem": "2 + 2?", "options": [], "answer": "4"}
    assert with_choices("here", row, 0) == row
    both = {"problem": "Which?", "choices": [], "options": ["iron", "gold"], "answer": "gold"}
    found = with_choices("here", both, 0)
    assert f"{found['answer']}) gold" in found["problem"]


BAD_CHOICES = [
    ({"problem": "Q", "choices": ["a", "b"], "answer": "c"}, "here: the answer is 'c', must be"),
    ({"problem": "Q", "choices": ["a", "b"], "answer": 2}, "here: the answer is '2', must be"),
    ({"problem": "Q", "choices": ["a", "b"], "answer": True}, "here: the answer is 'True', must be"),
    ({"problem": "Q", "choices": ["a", "b"]}, "here: the answer is 'None', must be"),
    ({"problem": "Q", "choices": ["a"], "answer": 0}, "here: needs 2 to 10 choices"),
    ({"problem": "Q", "choices": ["a", " "], "answer": 0}, "here: needs 2 to 10 choices"),
    ({"problem": "Q", "choices": ["a", 3], "answer": 0}, "here: needs 2 to 10 choices"),
    ({**GPQA, "Incorrect Answer 2": None}, "here: needs 2 to 10 choices"),
]


@pytest.mark.parametrize(("row", "message"), BAD_CHOICES)
def test_choices_that_make_no_sense(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        with_choices("here", row, 0)
    assert message in str(caught.value)
