"""Problems and labelled solutions are read from files and from the Hugging Face Hub; a bad row is named."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from fapo.data.jsonl import read_jsonl
from fapo.data.problems import answer_of_worked_solution, load_prompt, read_labelled, read_problems
from fapo.data.steps import split_steps
from fapo.errors import FapoError
from fapo.types import LabelledSolution, Problem
from tests.support.paths import shared_data


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


def says(text: str) -> Any:
    return pytest.raises(FapoError, match=re.escape(text))


# ---------------------------------------------------------------------------------------------------------- problems


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"id": "a", "problem": "Q", "answer": "1"}, Problem("a", "Q", "1", "set")),
        ({"ID": 7, "Question": "Q", "Answer": 1}, Problem("7", "Q", "1", "set")),
        ({"problem": "Q", "answer": 1.6e-19}, Problem("set-0", "Q", "0.00000000000000000016", "set")),
        ({"problem": "Q", "answer": 1e16}, Problem("set-0", "Q", "10000000000000000", "set")),
        ({"problem": "Q", "answer": [-2.5]}, Problem("set-0", "Q", "-2.5", "set")),
        ({"unique_id": "u", "prompt": "Q", "reference": "x"}, Problem("u", "Q", "x", "set")),
        ({"question": "Q", "answer": "2 * 3 = <<2*3=6>>6\n#### 6"}, Problem("set-0", "Q", "6", "set")),
        ({"problem": "Q", "solution": "So\n#### 1,200 "}, Problem("set-0", "Q", "1,200", "set")),
        (
            {"problem": "Q", "solution": r"\boxed{3} or $\boxed{\frac{1}{2}}$."},
            Problem("set-0", "Q", r"\frac{1}{2}", "set"),
        ),
        ({"problem": "Q", "solution": r"\boxed{{1}"}, Problem("set-0", "Q", r"\boxed{{1}", "set")),
        (
            {"id": "a", "problem": "Q", "solution": "long", "answer": "1", "level": 2},
            Problem("a", "Q", "1", "set", {"solution": "long", "level": 2}),
        ),
        (
            {
                "prompt": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}],
                "reward_model": {"ground_truth": "34", "style": "rule"},
            },
            Problem("set-0", "Q", "34", "set", {"reward_model": {"ground_truth": "34", "style": "rule"}}),
        ),
        (
            {"id": "a", "question": None, "problem": "Q", "answer": None, "reference": 2.5},
            Problem("a", "Q", "2.5", "set"),
        ),
    ],
)
def test_usual_columns(tmp_path: Path, row: dict[str, Any], problem: Problem) -> None:
    (loaded,) = read_problems(jsonl(tmp_path / "set.jsonl", row))
    meta = {name: value for name, value in loaded.meta.items() if value is not None}
    assert Problem(loaded.id, loaded.text, loaded.reference, loaded.source, meta) == problem


GOOD = {"id": "a", "problem": "Q", "answer": "1"}


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"answer": "1"}, "no problem: expected problem or question or prompt or input; its columns are answer"),
        ({"problem": "Q"}, "no reference: expected reference or ground_truth"),
        ({"problem": 3, "answer": "1"}, "problem must be a text"),
        ({"problem": " ", "answer": "1"}, "problem must be a text"),
        (
            {"prompt": [{"role": "system", "content": "S"}], "answer": "1"},
            "prompt must be a text that is not empty, or a",
        ),
        ({"problem": "Q", "answer": ["1", "2"]}, "answer is \"['1', '2']\""),
        ({"problem": "Q", "answer": True}, "answer is 'True'"),
        ({"problem": "Q", "answer": ""}, "answer is ''"),
        ({"problem": "Q", "solution": "so\n####"}, "solution holds no final answer"),
        ({"id": {}, "problem": "Q", "answer": "1"}, "id is '{}'"),
        ({"problem": "Q", "answer": math.nan}, "answer is nan, must be a text or a finite number"),
        ('{"problem": "Q", "answer": 1, "id": -Infinity}', "id is -inf, must be a text or a finite number"),
        (GOOD, "id 'a' is already that of "),
        ([1], "must be a JSON object, is a list"),
        ("{", "invalid JSON"),
        ('{"problem": "Q", "answer": ' + "9" * 5000 + "}", "invalid JSON"),
        ("[" * 100_000, "JSON nested too deeply"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_rows_that_do_not_fit_are_named_by_line(tmp_path: Path, row: Any, complaint: str) -> None:
    with says(f"set.jsonl:3: {complaint}"):
        read_problems(jsonl(tmp_path / "set.jsonl", GOOD, "", row))


def test_bytes_that_are_not_utf8_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b'\n{"problem": "\xe9"}\n')
    with says("set.jsonl:2: invalid UTF-8 at byte 13"):
        read_problems(path)


@pytest.mark.parametrize("bad", [0, 3, 6])
def test_parquet_texts_that_are_not_utf8_are_named_by_row(bad: int, tmp_path: Path) -> None:
    texts = [b"\xff" if i == bad else b"Q" for i in range(7)]
    offsets = pyarrow.array(range(8), pyarrow.int32()).buffers()[1]
    column = pyarrow.Array.from_buffers(pyarrow.string(), 7, [None, offsets, pyarrow.py_buffer(b"".join(texts))])
    pyarrow.parquet.write_table(pyarrow.table({"problem": column, "answer": ["1"] * 7}), tmp_path / "set.parquet")
    with says(f"set.parquet[{bad}]: invalid UTF-8 at byte 0"):
        read_problems(tmp_path / "set.parquet")


def test_a_prompt_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_bytes(b"{{problem}}\xff")
    with says("prompt.txt: not UTF-8 text"):
        load_prompt(tmp_path / "prompt.txt")


def test_a_prompt_that_is_missing_is_named(tmp_path: Path) -> None:
    with says("prompt.txt: no such file; give a text file with the prompt, {{problem}} in it"):
        load_prompt(tmp_path / "prompt.txt")


def test_byte_order_mark_windows_newlines_and_line_separators(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"problem": "a\xe2\x80\xa8b", "answer": 1}\r\n\r\n{"problem": "Q", "answer": 2}')
    assert [(p.id, p.text) for p in read_problems(path)] == [("set-0", "a\u2028b"), ("set-1", "Q")]


def test_limit_stops_reading(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "set.jsonl", GOOD, "{")
    assert len(read_problems(path, limit=1)) == 1
    assert read_problems(path, limit=0) == []


def test_json_and_parquet_give_the_same_as_jsonl(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"problem": f"Q{i}", "answer": i} for i in range(3)]
    (tmp_path / "set.json").write_text(json.dumps(rows))
    parquet.write_table(sys.modules["pyarrow"].Table.from_pylist(rows), tmp_path / "set.parquet")
    expected = read_problems(jsonl(tmp_path / "set.jsonl", *rows))
    assert read_problems(tmp_path / "set.json") == read_problems(tmp_path / "set.parquet") == expected
    (tmp_path / "set.json").write_text(json.dumps([*rows, 4]))
    with says("set.json[3]: must be a JSON object"):
        read_problems(tmp_path / "set.json")
    (tmp_path / "set.json").write_text('{"data": []}')
    with says("set.json: must be a list of objects"):
        read_problems(tmp_path / "set.json")
    (tmp_path / "set.parquet").write_bytes(b"PAR?")
    with says("set.parquet: invalid Parquet"):
        read_problems(tmp_path / "set.parquet")


@pytest.mark.parametrize("source", ["missing.jsonl", "no/such.jsonl", "a/b/c", "owner/name?", "plain", "."])
def test_sources_that_do_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.chdir(tmp_path)
    with says(f"{source}: neither a file nor a Hugging Face id"):
        read_problems(source)


def test_other_faulty_sources(tmp_path: Path) -> None:
    with says("unknown kind of file"):
        read_problems(jsonl(tmp_path / "set.csv"))
    with says("is empty; give a source"):
        read_problems(jsonl(tmp_path / "set.jsonl"))
    with says("is empty; give a source"):
        read_labelled(jsonl(tmp_path / "set.jsonl"))
    with says("split='test' is for Hugging Face data sets"):
        read_problems(jsonl(tmp_path / "set.jsonl", GOOD), split="test")


class Splits(dict[str, list[dict[str, Any]]]):
    pass


Hub = Callable[[dict[str, Any]], list[tuple[Any, ...]]]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    """Return a function that replaces `datasets` by given splits and returns the list of its calls."""

    def serve(splits: dict[str, Any]) -> list[tuple[Any, ...]]:
        calls: list[tuple[Any, ...]] = []

        def load_dataset(name: str, config: str | None, split: str | None) -> Any:
            calls.append((name, config, split))
            return Splits(splits) if split is None else splits[split]

        module = ModuleType("datasets")
        module.load_dataset, module.DatasetDict = load_dataset, Splits  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "datasets", module)
        return calls

    return serve


def test_hugging_face_ids(hub: Hub) -> None:
    calls = hub({"test": [{"question": "Q", "answer": "#### 1"}], "train": []})
    assert read_problems("openai/gsm8k:main", split="test") == [Problem("gsm8k-0", "Q", "1", "gsm8k")]
    assert calls == [("openai/gsm8k", "main", "test")]
    with says("openai/gsm8k: choose a split, one of test, train"):
        read_problems("openai/gsm8k")


def test_an_only_split_needs_no_name(hub: Hub) -> None:
    hub({"train": [GOOD, {"problem": "Q"}]})
    assert read_problems("a/b", limit=1) == [Problem("a", "Q", "1", "b")]
    with says("a/b[1]: no reference"):
        read_problems("a/b")


@pytest.mark.parametrize("error", ["DatasetNotFoundError", "ValueError"])
def test_a_data_set_config_or_split_that_the_hub_does_not_have(error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def refuse(*_: Any, **__: Any) -> None:
        raise {"ValueError": ValueError}.get(error, datasets.exceptions.DatasetNotFoundError)("there is none")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with says("a/b: there is none; correct the name, the config after `:` or the split"):
        read_problems("a/b")


def test_without_the_library_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with says("pip install 'fapo[train]'"):
        read_problems("a/b")


# ------------------------------------------------------------------------------------------------ labelled solutions


def test_labelled_rows(tmp_path: Path) -> None:
    response = "One.\n\nTwo."
    path = jsonl(
        tmp_path / "set.jsonl",
        {"id": 1, "problem": "Q", "steps": ["a", "b"], "label": 1, "final_answer_correct": False, "generator": "m"},
        {"id": 2, "problem": "Q", "response": response, "label": -1, "answer": 4},
    )
    assert read_labelled(path) == [
        LabelledSolution(Problem("1", "Q", "", "set", {"generator": "m"}), ("a", "b"), 1, False),
        LabelledSolution(Problem("2", "Q", "4", "set"), tuple(split_steps(response)), None, True),
    ]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"label": 2}, "label is 2, must be an integer from -1 to 1"),
        ({"label": -2}, "label is -2"),
        ({"label": "1"}, "label is '1'"),
        ({"label": True}, "label is True"),
        ({"label": None}, "label is None"),
        ({"label": 0, "steps": "ab"}, "needs steps, a list of texts, or response, a text"),
        ({"label": 0, "steps": ["a", 1]}, "needs steps"),
        ({"label": 0, "steps": None}, "needs steps"),
        ({"label": -1, "steps": []}, "the solution has no steps"),
        ({"label": 0, "final_answer_correct": "yes"}, "final_answer_correct is 'yes'"),
        ({"label": 0, "problem": None}, "no problem: "),
    ],
    ids=str,
)
def test_labelled_rows_that_do_not_fit(tmp_path: Path, row: dict[str, Any], complaint: str) -> None:
    with says(f"set.jsonl:1: {complaint}"):
        read_labelled(jsonl(tmp_path / "set.jsonl", {"problem": "Q", "steps": ["a", "b"]} | row))


# ---------------------------------------------------------------------------------------------------- real data sets


@pytest.mark.parametrize(("name", "num_rows"), [("gsm8k_test", 1319), ("math500", 500), ("aime24", 30), ("aime25", 30)])
def test_real_problems(name: str, num_rows: int) -> None:
    problems = read_problems(shared_data(f"{name}.jsonl"))
    assert len(problems) == len({problem.id for problem in problems}) == num_rows
    assert all(problem.text.strip() and problem.reference.strip() for problem in problems)
    assert {problem.source for problem in problems} == {name}
    if name != "math500":
        assert all(re.fullmatch(r"-?[\d,.]+", problem.reference) for problem in problems)


def test_worked_solutions_of_gsm8k_end_in_the_answer() -> None:
    for row in read_jsonl(shared_data("gsm8k_test.jsonl")):
        answer = answer_of_worked_solution(row["solution"])
        assert answer.replace(",", "") == row["answer"].replace(",", "")


@pytest.mark.parametrize(
    ("name", "num_rows", "num_correct", "num_flawed"), [("gsm8k", 400, 200, 7), ("math", 1000, 500, 94)]
)
def test_real_labels(name: str, num_rows: int, num_correct: int, num_flawed: int) -> None:
    solutions = read_labelled(shared_data(f"processbench_{name}.jsonl"))
    correct = [solution for solution in solutions if solution.correct]
    assert (len(solutions), len(correct)) == (num_rows, num_correct)
    assert sum(solution.error_step is not None for solution in correct) == num_flawed
    assert all(solution.error_step is not None for solution in solutions if not solution.correct)
