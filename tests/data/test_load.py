"""One place decides where a source is: a file, the Hugging Face Hub or the miniature."""

from __future__ import annotations

from pathlib import Path

import pytest

from fapo.data.jsonl import write_jsonl
from fapo.data.load import load_labelled, load_problems
from fapo.errors import DataError, FapoError


def test_files_and_the_miniature_have_no_splits(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    write_jsonl(file, [{"problem": "1+1?", "answer": "2", "steps": ["2"], "label": -1}])
    assert [problem.reference for problem in load_problems(str(file), split="test")] == ["2"]
    assert [row.error_step for row in load_labelled(str(file), split="all")] == [None]
    assert load_problems("miniature:test", split="train", limit=3) == load_problems("miniature:test", limit=3)
    assert all(row.correct for row in load_labelled("miniature:critic-test", split="all", need_correct=True, limit=3))


@pytest.mark.parametrize("limit", [0, 1, 5])
def test_the_limit_counts_rows_of_the_miniature(limit: int) -> None:
    assert len(load_problems("miniature:validation", limit=limit)) == limit
    assert len(load_labelled("miniature:critic-test", limit=limit)) == limit


@pytest.mark.parametrize("load", [load_problems, load_labelled])
def test_a_source_that_is_nowhere(load) -> None:
    with pytest.raises(DataError, match="neither a file nor a Hugging Face id"):
        load("no-such-file.jsonl")
    with pytest.raises(FapoError, match=r"miniature:nonsense.* known: "):
        load("miniature:nonsense")
