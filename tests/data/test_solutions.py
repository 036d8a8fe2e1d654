"""Solutions to be audited: column names of many programs, bad rows, reference answers from another data set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fapo.data.load import load_problems
from fapo.data.solutions import BadRow, Solution, read_solutions, reference_lookup
from fapo.types import Given
from tests.support.solution_rows import ROW, Row, row, written

SHAPES: dict[str, tuple[Row, Row]] = {
    "ours": (row(id="x", source="s"), {"id": "x", "source": "s", "problem": "What is 1+1?", "reference": "2"}),
    "question, answer, completion": (
        {"question": "Q", "answer": 7, "completion": "\\boxed{7}"},
        {"problem": "Q", "reference": "7", "steps": ("\\boxed{7}",), "id": "rows-0", "source": "rows"},
    ),
    "worked solution": (
        {"prompt": "Q", "solution": "3+4=7\n#### 7", "output": "a\n\nb"},
        {"problem": "Q", "reference": "7", "steps": ("a\n\n", "b")},
    ),
    "ProcessBench": (
        {"id": "gsm8k-0", "problem": "Q", "steps": ["a", "b"], "final_answer_correct": True, "label": -1},
        {"id": "gsm8k-0", "reference": "", "correct": True, "steps": ("a", "b"), "text": "a\n\nb"},
    ),
    "verl": (
        {"input": "user\nQ", "output": "\\boxed{7}", "gts": "7", "score": 1.0, "step": 3},
        {"problem": "user\nQ", "reference": "7", "text": "\\boxed{7}"},
    ),
    "an answer of the model": (
        {"problem": "Q", "answer": "8", "ground_truth": "7", "response": "x"},
        {"reference": "7"},
    ),
    "verl, thinking": (
        {"input": "user\nQ\nassistant\n<think>\n", "output": "8?\n</think>\n\n\\boxed{7}", "gts": "7"},
        {"text": "\\boxed{7}", "steps": ("\\boxed{7}",)},
    ),
    "verl, thinking that was cut off": (
        {"input": "user\nQ\nassistant\n<think>\n", "output": "\\boxed{7}? No", "gts": "7"},
        {"text": "", "steps": ()},
    ),
    "verl with a list": ({"input": "Q", "output": "x", "gts": ["7"]}, {"reference": "7"}),
    "TRL, conversations": (
        {
            "prompt": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}],
            "completion": [{"role": "assistant", "content": "\\boxed{7}"}],
            "answer": "7",
            "advantage": 0.0,
        },
        {"problem": "Q", "text": "\\boxed{7}", "reference": "7"},
    ),
    "verl's training data": (
        {"prompt": [{"role": "user", "content": "Q"}], "reward_model": {"ground_truth": "7"}, "response": "x"},
        {"problem": "Q", "reference": "7"},
    ),
    "TRL, a tool": (
        {
            "prompt": [{"role": "user", "content": "Q"}],
            "completion": [
                {
                    "role": "assistant",
                    "content": "<think>?</think>a\n\nb",
                    "tool_calls": [{"name": "f", "arguments": {}}],
                },
                {"role": "tool", "name": "f", "content": "7\n\n8"},
                {"role": "assistant", "content": "\\boxed{7}"},
            ],
            "answer": "7",
        },
        {"text": "\\boxed{7}", "steps": ("a\n\n", "b\n\n", "Tool call: f({})", Given("7\n\n8"), "\\boxed{7}")},
    ),
    "thinking": (row(response="<think>8?</think>\n\na\n\n\\boxed{7}"), {"steps": ("a\n\n", "\\boxed{7}")}),
    "thinking, cut off": (row(response="<think>\\boxed{7}"), {"text": "", "steps": ()}),
    "capitals": ({"Problem": "Q", "Answer": "7", "Response": "x"}, {"problem": "Q", "reference": "7", "text": "x"}),
    "null is absent": (row(steps=None, id=None), {"steps": ("1+1=2\n\n", "So \\boxed{2}.")}),
    "steps before response": (row(steps=["a"]), {"steps": ("a",), "text": "a"}),
    "empty": (row(response=""), {"steps": (), "text": ""}),
    "blank": (row(response=" \n\n "), {"steps": ()}),
    "no steps": (row(steps=[]), {"steps": ()}),
    "NUL": (row(response="a\0b"), {"text": "a\0b"}),
    "number as id": (row(id=12), {"id": 12}),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_of_rows(name: str, tmp_path: Path) -> None:
    given, expected = SHAPES[name]
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(given) + "\n")
    (found,) = read_solutions(path)
    assert isinstance(found, Solution), found
    seen = {"problem": found.problem.text, "reference": found.problem.reference, "source": found.problem.source}
    seen |= {"id": found.id, "steps": found.steps, "text": found.text, "correct": found.correct}
    assert seen | expected == seen


BAD: dict[str, tuple[bytes, str]] = {
    "no problem": (b'{"reference": "2", "response": "x"}', "no problem: expected problem or question or prompt"),
    "no solution": (b'{"problem": "Q", "reference": "2"}', "no solution: expected steps or trajectory or response"),
    "no answer": (b'{"problem": "Q", "response": "x"}', "no right answer: .*--references DATA"),
    "no columns": (b"{}", "no problem: .*its columns are none"),
    "steps is a text": (b'{"problem": "Q", "reference": "2", "steps": "a"}', "steps must be a list of texts, is 'a'"),
    "steps of numbers": (b'{"problem": "Q", "reference": "2", "steps": ["a", 2]}', "steps must be a list of texts"),
    "number as problem": (b'{"problem": 5, "reference": "2", "response": "x"}', "problem must be a text"),
    "conversation without answer": (
        b'{"problem": "Q", "reference": "2", "response": [{"role": "user", "content": "x"}]}',
        "response must be a text, or a conversation with an assistant's turn",
    ),
    "content is a number": (
        b'{"problem": "Q", "reference": "2", "response": [{"role": "assistant", "content": 5}]}',
        "response has a message whose content is '5', must be a text",
    ),
    "number as response": (b'{"problem": "Q", "reference": "2", "response": 5}', "response must be a text"),
    "list as reference": (b'{"problem": "Q", "reference": ["2", "3"], "response": "x"}', "reference is"),
    "empty reference": (b'{"problem": "Q", "reference": " ", "response": "x"}', "reference is ' '"),
    "list as id": (b'{"id": [1], "problem": "Q", "reference": "2", "response": "x"}', "id is"),
    "correct is a text": (b'{"problem": "Q", "correct": "yes", "response": "x"}', "correct is 'yes', must be true"),
    "no object": (b"[1, 2]", "must be a JSON object"),
    "no JSON": (b"{nonsense", "invalid JSON"),
    "NUL bytes": (b'{"problem": "a\0b"}', "invalid JSON"),
    "no UTF-8": (b'{"problem": "\xff"}', "invalid UTF-8 at byte 13"),
    "nested": (b'{"a": ' * 100_000, "nested too deeply"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_has_its_place_and_the_next_one_is_read(name: str, tmp_path: Path) -> None:
    content, message = BAD[name]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n" + content + b"\n" + json.dumps(ROW).encode() + b"\n")
    bad, good = read_solutions(path)
    assert isinstance(bad, BadRow)
    assert isinstance(good, Solution)
    assert bad.reason.startswith(f"{path}:2: ")
    with pytest.raises(ValueError, match=message):
        raise ValueError(bad.reason)


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "completions_00001.parquet"
    talk = [[{"role": "user", "content": "Q"}], [{"role": "assistant", "content": "\\boxed{7}"}]]
    table = {"step": [1], "prompt": [talk[0]], "completion": [talk[1]], "reference": ["7"], "steps": [None]}
    parquet.write_table(pyarrow.table(table), path)
    (found,) = read_solutions(path)
    assert isinstance(found, Solution)
    assert (found.problem.text, found.text, found.id) == ("Q", "\\boxed{7}", "completions_00001-0")


def test_references_are_looked_up_by_the_text_of_the_problem(tmp_path: Path) -> None:
    data = [{"problem": "What is 1+1?", "answer": "2"}, {"problem": "What is 1+1? And doubled?", "answer": "4"}]
    find = reference_lookup(str(written(tmp_path / "data.jsonl", data)))
    rows = [
        {"prompt": "What is 1+1?", "completion": "x"},
        {"prompt": "<|im_start|>user\nWhat is 1+1? And doubled?<|im_end|>\n", "completion": "x"},
        {"prompt": "Something else", "completion": "x"},
        {"prompt": "What is 1+1?", "completion": "x", "answer": "3"},
    ]
    found = list(read_solutions(written(tmp_path / "log.jsonl", rows), references=find))
    assert [s.problem.reference for s in found if isinstance(s, Solution)] == ["2", "4", "3"]
    assert found[1].problem.text == "What is 1+1? And doubled?"
    assert "not among the references" in found[2].reason


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("What is 1+1?", True),
        ("求1+1的值", True),
        ("11+1", False),
        ("1+10", False),
        ("1+1x", False),
        ("1+1.5", False),
        ("0.1+1", False),
        ("-1+1", False),
        ("3*1+1", False),
        ("1+1/2", False),
        ("**1+1**", True),
        ("- 1+1", True),
        ("11+1, or 1+1.", True),
    ],
)
def test_a_problem_is_no_part_of_another_word_number_or_formula(prompt: str, found: bool, tmp_path: Path) -> None:
    find = reference_lookup(str(written(tmp_path / "data.jsonl", [{"problem": "1+1", "answer": "2"}])))
    assert (find(prompt) is not None) is found


def test_references_come_from_any_data_set() -> None:
    first = load_problems("miniature:validation", limit=1)[0]
    assert reference_lookup("miniature:validation")(first.text) == first
