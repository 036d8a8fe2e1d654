"""JSON Lines: rows come back as they were, and a crash costs at most the last line."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.data.jsonl import finite, finite_number, read_jsonl, write_jsonl
from fapo.errors import DataError
from fapo.types import Problem

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(st.characters(exclude_categories=()))
    | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
ROWS = st.lists(st.dictionaries(st.text(max_size=5), JSON, max_size=3), max_size=4)


@given(first=ROWS, second=ROWS)
def test_rows_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, first: Any, second: Any) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    write_jsonl(path, first)
    write_jsonl(path, second, append=True)
    assert list(read_jsonl(path)) == first + second
    assert path.read_bytes().count(b"\n") == len(first + second)


def test_lone_surrogates_survive_and_dataclasses_are_rows(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.jsonl"
    write_jsonl(path, [Problem("a", "\ud800 × \\", "1")], append=True)
    assert list(read_jsonl(path)) == [{"id": "a", "text": "\ud800 × \\", "reference": "1", "source": "", "meta": {}}]
    assert "×".encode() in path.read_bytes()


def test_writing_replaces_the_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    write_jsonl(path, [{"a": 1}, {"a": 2}])
    write_jsonl(path, [{"a": 3}])
    assert list(read_jsonl(path)) == [{"a": 3}]
    with pytest.raises(TypeError):
        write_jsonl(path, [{"a": object()}])
    assert list(read_jsonl(path)) == [{"a": 3}]
    assert list(tmp_path.iterdir()) == [path]


def test_every_torn_tail_can_be_ignored_and_is_mended_by_the_next_append(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    whole = [{"a": 1}, {"b": "é}"}]
    write_jsonl(path, whole)
    content = path.read_bytes()
    first = content.index(b"\n") + 1
    for length in range(len(content)):
        path.write_bytes(content[:length])
        kept = whole[: sum(length >= end for end in (first - 1, len(content) - 1))]
        assert list(read_jsonl(path, ignore_torn_tail=True)) == kept
        write_jsonl(path, [{"c": 3}], append=True)
        assert list(read_jsonl(path)) == [*kept, {"c": 3}]


def test_only_a_torn_tail_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for content, line in [(b'{"a": 1}\n{"a"\n', 2), (b'{"a"\n{"a": 1}', 1), (b'{"a": 1}\n\n[2]\n{"a"', 3)]:
        path.write_bytes(content)
        with pytest.raises(DataError, match=re.escape(f"rows.jsonl:{line}: ")):
            list(read_jsonl(path, ignore_torn_tail=True))
    path.write_bytes(b'{"a": 1}\n{"a"')
    with pytest.raises(DataError, match=r"rows\.jsonl:2: invalid JSON"):
        list(read_jsonl(path))


def test_numbers_that_json_does_not_have_become_null() -> None:
    assert finite({"a": [1.5, math.nan], "b": {"c": (math.inf, "x", True)}}) == {
        "a": [1.5, None],
        "b": {"c": [None, "x", True]},
    }


@pytest.mark.parametrize(
    ("value", "number"),
    [(1, 1.0), (-0.5, -0.5), (math.nan, None), (math.inf, None), (True, None), ("1", None), (None, None)],
)
def test_a_number_of_a_file_is_finite_or_none(value: Any, number: float | None) -> None:
    assert finite_number(value) == number
