"""Rows in the format of verl: write data sets as Parquet files, and read labelled solutions of finished prompts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fapo.data.columns import Row, as_question_text, get_nested
from fapo.data.files import atomic_path
from fapo.errors import DataError
from fapo.types import Message

RAW_INFO = "extra_info.raw_info"
"""Column of rows for evaluation that holds the label and whether the final answer is correct."""
_PROMPT = re.compile(
    r"\[Math Problem\]\s*(?P<problem>.+?)\s*(?:\[Ground Truth\]\s*(?P<reference>.+?)\s*)?"
    r"\[(?:AI )?Solution\]\s*(?P<solution><paragraph_0>.+)",
    re.DOTALL,
)
"""Pattern of the prompts of FAPO-Critic-85K; those without a reference are like the prompts of ProcessBench."""
_PARAGRAPH = re.compile(r"<paragraph_(\d+)>\n?(.*?)\n?</paragraph_\1>", re.DOTALL)


def verl_row(
    *, data_source: str, prompt: list[Message], ability: str, ground_truth: str, extra_info: Mapping[str, Any]
) -> dict[str, Any]:
    """Make one row of a verl data set.

    Args:
        data_source: Name by which verl chooses a reward function and groups its validation metrics.
        prompt: Conversation that the model is given.
        ability: Kind of task, such as "math".
        ground_truth: Reference answer, or the label of a solution as text.
        extra_info: Everything else that the reward function needs.

    Returns:
        The row, with the columns that verl expects.
    """
    return {
        "data_source": data_source,
        "prompt": prompt,
        "ability": ability,
        "reward_model": {"style": "rule", "ground_truth": ground_truth},
        "extra_info": dict(extra_info),
    }


def labelled_row(where: str, row: Row) -> Row:
    """Take a labelled solution apart that is a finished prompt for verl, as in FAPO-Critic-85K.

    Such a row has `prompt`, a conversation about a problem, its reference answer and tagged paragraphs, the label in
    `reward_model.ground_truth`, and the number of paragraphs in `extra_info.total_steps`. A row that is for evaluation
    also has `extra_info.raw_info` with `label` and `final_answer_correct`. Source: the reward function of FAPO's GenRM
    and its evaluation script, which read these columns.

    Args:
        where: File and line of the row, for the message.
        row: Row of a data set.

    Returns:
        The row with `problem`, `reference`, `steps`, `label` and `final_answer_correct`, where it is known, in place of
        `prompt` and `reward_model`; a row without `extra_info.total_steps` as it is.

    Raises:
        DataError: The prompt has another form, another number of paragraphs, the label is no integer, or both labels
            differ.
    """
    total = get_nested(row, "extra_info.total_steps")
    if total is None:
        return row
    found = _PROMPT.search(as_question_text(where, "prompt", row.get("prompt")))
    if not found:
        raise DataError(
            f"{where}: prompt needs [Math Problem], [AI Solution] and <paragraph_0>, because the row has "
            "extra_info.total_steps; or give problem, steps and label, without total_steps"
        )
    paragraphs = _PARAGRAPH.findall(found["solution"])
    if [int(index) for index, _ in paragraphs] != list(range(len(paragraphs))) or len(paragraphs) != total:
        raise DataError(
            f"{where}: extra_info.total_steps is {total!r}, but the paragraphs in the prompt are "
            f"{', '.join(index for index, _ in paragraphs) or 'not closed'}; correct or remove the row"
        )
    label = get_nested(row, "reward_model.ground_truth")
    if not re.fullmatch(r"-?[0-9]{1,9}", str(label)):
        raise DataError(f"{where}: reward_model.ground_truth is {label!r}, must be the index of a paragraph, or -1")
    solution = {"problem": found["problem"], "steps": [text for _, text in paragraphs], "label": int(str(label))}
    if found["reference"]:
        solution["reference"] = found["reference"]
    raw = get_nested(row, RAW_INFO)
    if isinstance(raw, dict) and "final_answer_correct" in raw:
        if raw.get("label", solution["label"]) != solution["label"]:
            raise DataError(
                f"{where}: {RAW_INFO}.label is {raw['label']!r}, but reward_model.ground_truth is {label!r}; "
                "correct one of them"
            )
        solution["final_answer_correct"] = raw["final_answer_correct"]
    return {key: row[key] for key in row if key not in ("prompt", "reward_model")} | solution


def subset_of(meta: Mapping[str, Any]) -> str:
    """Return the subset of a row for evaluation.

    Args:
        meta: Columns of the row, as in `Problem.meta`.

    Returns:
        The part of `data_source` after its slash; empty for other rows.
    """
    name = meta.get("data_source")
    return name.rpartition("/")[2] if isinstance(name, str) and get_nested(dict(meta), RAW_INFO) else ""


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as one Parquet file.

    Args:
        path: File to write; it appears only when it is complete.
        rows: Rows. A lone surrogate, which Parquet cannot store, becomes its escape sequence.
    """
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.Table.from_pylist([_encodable(dict(row)) for row in rows])
    with atomic_path(path) as draft:
        pyarrow.parquet.write_table(table, draft)


def _encodable(value: Any) -> Any:
    """Return a value with an escape sequence for each lone surrogate, at any depth."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {key: _encodable(item) for key, item in value.items()}
    return [_encodable(item) for item in value] if isinstance(value, list) else value
