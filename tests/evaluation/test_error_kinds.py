"""Kinds of error by the words of critiques: cases, and the agreement with a reader that docs/audit.md states."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.data.jsonl import read_jsonl
from fapo.evaluation.audit.error_kinds import ErrorKind, error_kind

READ_BY_HAND = list(read_jsonl(Path(__file__).parent / "error_kinds.jsonl"))
"""Critiques of Qwen2.5-Coder-0.5B and 1.5B, with the kind that a person gave them before the rule was run on them."""


@pytest.mark.parametrize(
    ("critique", "kind"),
    [
        ("Step 1 is wrong: 36 - 5 is 31, not 29. \\boxed{1}", "calculation"),
        ("The multiplication has a sign error.", "calculation"),
        ("The product 2 \\times 3 is given as 7.", "calculation"),
        ("The claim does not follow from step 0.", "unjustified step"),
        ("It assumes that the triangle is isosceles.", "unjustified step"),
        ("The solution guesses x = 3 and stops.", "guess"),
        ("The number 12 appears out of nowhere.", "guess"),
        ("The answer is simply copied from the question.", "copied answer"),
        ("It restates the reference answer instead of finding it.", "copied answer"),
        ("The step misreads the price: the problem says 4 dollars, not 2.", "misreading"),
        ("It forgets the third box.", "misreading"),
        ("This is wrong.", "other"),
        ("", "other"),
    ],
)
def test_kinds_by_words(critique: str, kind: ErrorKind) -> None:
    assert error_kind(critique) == kind


def test_words_about_earlier_steps_do_not_count() -> None:
    critique = "Step 0: the guess x = 2 is checked, right. Step 1: the sum is 14, not 15. \\boxed{1}"
    assert error_kind(critique) == "guess"
    assert error_kind(critique, 1) == "calculation"
    assert error_kind(critique, 7) == "guess", "step 7 is not mentioned, so all of the text is read"


@given(st.text(), st.none() | st.integers(0, 99))
def test_any_text_has_a_kind(critique: str, error_step: int | None) -> None:
    assert error_kind(critique, error_step) in get_args(ErrorKind)


@pytest.mark.parametrize(
    ("chosen", "agreed", "num", "num_calculation"), [("development", 30, 43, 26), ("test", 11, 14, 9)]
)
def test_the_stated_agreement_with_a_reader(chosen: str, agreed: int, num: int, num_calculation: int) -> None:
    rows = [row for row in READ_BY_HAND if row["set"] == chosen]
    assert len(rows) == num
    assert sum(error_kind(row["critique"], row["error_step"]) == row["kind"] for row in rows) == agreed
    assert Counter(row["kind"] for row in rows)["calculation"] == num_calculation
