"""fapo filter-problems: questions by their solve rate."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.data.jsonl import read_jsonl, write_jsonl
from fapo.data.problems import read_problems
from fapo.errors import ConfigError, DataError
from fapo.evaluation.policy.filter import filter_problems
from fapo.evaluation.policy.settings import FilterSettings
from tests.support.command_line import fapo


def row(number: int, correct: int, samples: int = 8) -> dict[str, Any]:
    """Return a row as `fapo eval` writes it, in its main columns."""
    question = {"id": f"q-{number}", "source": "sums", "problem": f"{number}+1=?", "reference": str(number + 1)}
    return question | {"num_samples": samples, "num_correct": correct, "num_failed": 8 - samples, "samples": []}


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    path = tmp_path / "eval.jsonl"
    write_jsonl(path, [*(row(correct, correct) for correct in range(9)), row(9, 0, 0)])
    return path


def test_questions_between_the_bounds_can_be_trained_on(evaluation: Path, tmp_path: Path) -> None:
    found = filter_problems(
        FilterSettings(evaluation=evaluation, out=tmp_path / "kept.jsonl", min_rate=0.25, max_rate=0.5)
    )
    assert (found.kept, found.below, found.above, found.unanswered) == (3, 2, 4, 1)
    problems = read_problems(tmp_path / "kept.jsonl")
    assert [(p.id, p.text, p.reference, p.meta["source"]) for p in problems] == [
        (f"q-{n}", f"{n}+1=?", str(n + 1), "sums") for n in (2, 3, 4)
    ]
    assert [r["solve_rate"] for r in read_jsonl(tmp_path / "kept.jsonl")] == [0.25, 0.375, 0.5]


def test_an_id_that_two_sources_share_is_made_unique(tmp_path: Path) -> None:
    rows = [row(1, 4), row(1, 4) | {"source": "others"}, row(2, 4)]
    write_jsonl(tmp_path / "eval.jsonl", rows)
    filter_problems(FilterSettings(evaluation=tmp_path / "eval.jsonl", out=tmp_path / "kept.jsonl"))
    assert [p.id for p in read_problems(tmp_path / "kept.jsonl")] == ["sums-q-1", "others-q-1", "q-2"]


@given(
    counts=st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)).map(sorted), min_size=1),
    bounds=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
)
def test_every_question_is_counted_once(counts, bounds, tmp_path_factory) -> None:
    folder = tmp_path_factory.mktemp("filter")
    write_jsonl(folder / "eval.jsonl", [row(i, correct, num) for i, (correct, num) in enumerate(counts)])
    settings = FilterSettings(
        evaluation=folder / "eval.jsonl", out=folder / "kept.jsonl", min_rate=bounds[0], max_rate=bounds[1]
    )
    rates = [correct / num if num else math.nan for correct, num in counts]
    inside = [i for i, rate in enumerate(rates) if bounds[0] <= rate <= bounds[1]]
    if not inside:
        with pytest.raises(DataError, match="change the bounds"):
            filter_problems(settings)
        return
    found = filter_problems(settings)
    assert found.kept + found.below + found.above + found.unanswered == len(counts)
    assert [r["id"] for r in read_jsonl(folder / "kept.jsonl")] == [f"q-{i}" for i in inside]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"min_rate": 0.9}, ConfigError, "--min-rate 0.9 is above --max-rate 0.8"),
        ({"max_rate": 1.5}, ConfigError, "max_rate"),
        ({"out": "eval.jsonl"}, ConfigError, "eval.jsonl"),
        ({"out": "kept.parquet"}, ConfigError, "kept.parquet: must end in .jsonl"),
        ({"evaluation": Path("nothing.jsonl")}, DataError, "nothing.jsonl: no such file"),
        ({"evaluation": Path("other.jsonl")}, DataError, r"other\.jsonl:1: not a row of `fapo eval`"),
    ],
)
def test_mistakes(arguments, error, message: str, evaluation: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_jsonl(Path("other.jsonl"), [{"problem": "1+1", "reference": "2"}])
    settings = {"evaluation": evaluation, "out": "kept.jsonl"} | arguments
    with pytest.raises(error, match=message):
        filter_problems(FilterSettings(**(settings | {"out": tmp_path / settings["out"]})))
    assert not Path("kept.jsonl").exists()


def test_the_command_says_what_it_kept(evaluation: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    out = tmp_path / "kept[v2].jsonl"
    assert fapo(monkeypatch, "filter-problems", evaluation, "--out", out) == 0
    printed = capsys.readouterr()
    assert printed.out == "5 of 10 questions kept; 2 have a lower solve rate, 2 a higher one, 1 no sample\n"
    assert printed.err == f"questions: {out}\n", "brackets in a path are no markup"
