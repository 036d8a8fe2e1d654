"""Labelled solutions in the forms of public benchmarks, turned into rows with problem, steps and label."""

from __future__ import annotations

from typing import Any

from fapo.data.columns import Row
from fapo.data.verl_rows import labelled_row
from fapo.errors import DataError

REDUNDANCY = "redundency"
"""Class of PRMBench, in its spelling. Each original solution has one row of this class."""


def labelled_rows(where: str, row: Row) -> list[Row]:
    """Turn a row of a public benchmark into rows of labelled solutions.

    | form | recognized by | label |
    |---|---|---|
    | FAPO-Critic-85K, FlawedPositiveBench | `extra_info.total_steps` | see `fapo.data.verl_rows.labelled_row` |
    | GR-Ben | `domain`, `generator`, `error_type`, `label` | `label` counts from 1, -1 is no error |
    | PRMBench | `modified_process`, `error_steps` | the smallest of `error_steps`, which count from 1 |
    | Hard2Verify, decrypted | `model_response_by_step`, `human_labels` | the first 0 of `human_labels` |

    A row of PRMBench is its modified solution. A row of its class for redundant steps is two: the original solution,
    without an error, comes first. The class is the first part of the id.

    Args:
        where: File and line of the row, for the message.
        row: Row of a data set.

    Returns:
        Rows with the label as an index from 0, or -1; a row of another form as it is.

    Raises:
        DataError: The row has one of these forms, but a column does not fit.
    """
    if {"modified_process", "error_steps"} <= row.keys():
        return _prmbench(where, row)
    if {"model_response_by_step", "human_labels"} <= row.keys():
        return [_hard2verify(where, row)]
    if {"domain", "generator", "error_type", "label"} <= row.keys():
        return [{**row, "label": _from_one(where, "label", row["label"])}]
    return [labelled_row(where, row)]


def _prmbench(where: str, row: Row) -> list[Row]:
    """Return the solutions in a row of PRMBench."""
    kind, errors = row.get("classification"), row["error_steps"]
    if not isinstance(kind, str) or not isinstance(errors, list):
        raise DataError(f"{where}: a row of PRMBench needs classification, a text, and error_steps, a list of numbers")
    labels = [_from_one(where, "error_steps", step) for step in errors]
    if -1 in labels:
        raise DataError(f"{where}: error_steps is {errors!r}, must be steps from 1; an empty list means no error")
    modified = _solution(f"{kind}_{row.get('idx')}", row.get("modified_question"), row["modified_process"])
    out = [{**modified, "label": min(labels, default=-1), "classification": kind}]
    if kind == REDUNDANCY:
        original = _solution(f"correct_{row.get('idx')}", row.get("original_question"), row.get("original_process"))
        out.insert(0, {**original, "label": -1, "classification": "correct"})
    return out


def _hard2verify(where: str, row: Row) -> Row:
    """Return the solution in a decrypted row of Hard2Verify."""
    steps, labels = row["model_response_by_step"], row["human_labels"]
    if isinstance(steps, str) or isinstance(labels, str):
        raise DataError(
            f"{where}: the row is encrypted; decrypt it with the function that Hard2Verify's authors publish"
        )
    if not isinstance(labels, list) or any(isinstance(label, bool) or label not in (0, 1) for label in labels):
        raise DataError(f"{where}: human_labels is {str(labels)[:40]}, must be a list of 0 (wrong) and 1 (correct)")
    if not isinstance(steps, list) or len(steps) != len(labels):
        raise DataError(f"{where}: human_labels has {len(labels)} labels, must have one for each step")
    rest = {name: row[name] for name in row if name not in ("model_response_by_step", "human_labels", "question")}
    label = labels.index(0) if 0 in labels else -1
    return {**rest, "problem": row.get("question"), "steps": steps, "label": label}


def _solution(id: str, question: Any, steps: Any) -> Row:
    return {"id": id, "problem": question, "steps": steps}


def _from_one(where: str, column: str, step: Any) -> int:
    """Return a step that counts from 1 as an index from 0; -1 stays."""
    if isinstance(step, bool) or not isinstance(step, int) or not (step >= 1 or step == -1):
        raise DataError(f"{where}: {column} has {str(step)[:40]}, must be a step from 1, or -1 for no error")
    return step - 1 if step >= 1 else -1
