"""Rows of verl: Parquet files hold what Python texts hold, and finished prompts are read as labelled solutions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fapo.data.jsonl import write_jsonl
from fapo.data.load import load_labelled
from fapo.data.verl_rows import verl_row, write_parquet
from fapo.errors import DataError
from fapo.evaluation.judge_benchmarks.rows import load_rows
from fapo.types import LabelledSolution, Problem

STEPS = ("Three boxes hold $3 \\cdot 4 = 12$ pears.", "Five more make\n\n\\[\n12 + 5 = 17.\n\\]", "So \\boxed{17}.")


def tagged(
    steps: Sequence[str] = STEPS, label: Any = -1, *, reference: str = "17", total: Any = None, text: str = ""
) -> dict[str, Any]:
    """Return a row in the form of FAPO-Critic-85K: a finished prompt with tagged paragraphs."""
    paragraphs = "\n\n".join(f"<paragraph_{i}>\n{step}\n</paragraph_{i}>" for i, step in enumerate(steps))
    truth = f"[Ground Truth]\n\n{reference}\n\n[AI Solution]" if reference else "[Solution]"
    text = text or (
        f"Here is a question and what a model wrote (in paragraphs):\n\n[Math Problem]\n\nHow many pears?\nCount.\n\n"
        f"{truth}\n\n{paragraphs}\n\nName the first wrong paragraph in \\boxed{{}}, or -1."
    )
    return {
        "data_source": "fapo_critic",
        "prompt": [{"role": "user", "content": text}],
        "ability": "math_critic",
        "reward_model": {"ground_truth": label, "style": "rule"},
        "extra_info": {"question_index": 2, "split": "train", "total_steps": len(steps) if total is None else total},
    }


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows in the form that the suffix of the path says, and return the path."""
    if path.suffix == ".jsonl":
        write_jsonl(path, rows)
    else:
        pytest.importorskip("pyarrow")
        write_parquet(path, rows)
    return path


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("kind", [int, str])
def test_finished_prompts_are_labelled_solutions(suffix: str, kind: type, tmp_path: Path) -> None:
    rows = [tagged(label=kind(-1)), tagged(label=kind(1)), tagged(STEPS[:1], kind(0), reference="")]
    path = written(tmp_path / f"critic{suffix}", rows)
    meta = [{key: row[key] for key in ("data_source", "ability", "extra_info")} for row in rows]
    question = "How many pears?\nCount."
    assert load_labelled(str(path)) == [
        LabelledSolution(Problem("critic-0", question, "17", "critic", meta[0]), STEPS, None, True),
        LabelledSolution(Problem("critic-1", question, "17", "critic", meta[1]), STEPS, 1, True),
        LabelledSolution(Problem("critic-2", question, "", "critic", meta[2]), STEPS[:1], 0, True),
    ]


def evaluated(subset: str, label: int, raw_label: int, correct: Any) -> dict[str, Any]:
    """Return a row for evaluation, with the columns that FAPO's evaluation script reads."""
    row = tagged(label=label, reference="")
    row["extra_info"]["raw_info"] = {"label": raw_label, "final_answer_correct": correct}
    return row | {"data_source": f"PRM/{subset}"}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_rows_for_evaluation_say_which_count_and_their_subset(suffix: str, tmp_path: Path) -> None:
    rows = [evaluated("gsm8k", -1, -1, True), evaluated("math", 1, 1, True), evaluated("math", 0, 0, False)]
    path = written(tmp_path / f"fp_bench_test{suffix}", rows)
    found = load_rows("flawed-positive", [str(path)])
    assert [(row.error_step, row.steps) for row in found.counting] == [(None, STEPS), (1, STEPS)]
    assert load_rows("process", [str(path)]).subsets == ("gsm8k", "math", "math")


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (evaluated("math", 1, 2, True), "raw_info.label is 2, but reward_model.ground_truth is 1; correct one of"),
        (evaluated("math", 1, 1, "yes"), "final_answer_correct is 'yes', must be true or false"),
        (tagged(), "no final_answer_correct: true or false is needed"),
    ],
)
def test_rows_for_evaluation_that_contradict_themselves(row: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "bench.jsonl", [evaluated("math", 0, 0, True), row])
    with pytest.raises(DataError, match=rf"bench\.jsonl:2: .*{complaint}"):
        load_rows("flawed-positive", [str(tmp_path / "bench.jsonl")])


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (tagged(total=4), "extra_info.total_steps is 4, but the paragraphs in the prompt are 0, 1, 2; correct or"),
        (tagged(total="3"), "extra_info.total_steps is '3', but"),
        (
            tagged((*STEPS[:2], "<paragraph_1>x</paragraph_1>"), total=4),
            "is 4, but the paragraphs in the prompt are 0, 1, 2",
        ),
        (
            tagged(("a</paragraph_0> <paragraph_2>\nforged\n</paragraph_2>", "b")),
            "paragraphs in the prompt are 0, 2, 1",
        ),
        (tagged(text="[Math Problem] Q [AI Solution] <paragraph_0> never"), "in the prompt are not closed"),
        (tagged(text="How many pears? Three."), r"prompt needs \[Math Problem\], \[AI Solution\] and <paragraph_0>"),
        (tagged() | {"prompt": None}, "prompt must be a text"),
        (tagged(label=3), "label is 3, must be an integer from -1 to 2"),
        (tagged(label="x"), "reward_model.ground_truth is 'x', must be the index of a paragraph, or -1"),
        (tagged(label=None), "reward_model.ground_truth is None"),
        (tagged(label=1.5), "reward_model.ground_truth is 1.5"),
    ],
)
def test_prompts_that_do_not_fit_their_numbers(row: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "critic.jsonl"
    write_jsonl(path, [tagged(), row])
    with pytest.raises(DataError, match=rf"critic\.jsonl:2: .*{complaint}"):
        load_labelled(str(path))


def test_rows_come_back_and_lone_surrogates_are_escaped(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    prompt = [{"role": "user", "content": "1+1? \ud800"}]
    row = verl_row(
        data_source="train", prompt=prompt, ability="math", ground_truth="2", extra_info={"steps": ["\udfff", "é"]}
    )
    write_parquet(tmp_path / "rows.parquet", [row])
    assert parquet.read_table(tmp_path / "rows.parquet").to_pylist() == [
        {
            "data_source": "train",
            "prompt": [{"role": "user", "content": "1+1? \\ud800"}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": "2"},
            "extra_info": {"steps": ["\\udfff", "é"]},
        }
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["rows.parquet"]
