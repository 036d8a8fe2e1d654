"""Data files of labelled solutions: JSONL for fapo and TRL, Parquet in the format of verl."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fapo.data.jsonl import write_jsonl
from fapo.data.verl_rows import verl_row, write_parquet
from fapo.judge.template import Template, build_prompt
from fapo.types import LabelledSolution

DATA_SOURCE = "fapo-critic"
"""Value of the column `data_source`, by which verl chooses a reward function."""


def write_rows(out: Path, solutions: Sequence[LabelledSolution], template: Template) -> None:
    """Write the data file in one move, so that it is never incomplete.

    Args:
        out: File; .jsonl in the form that `read_labelled` reads, .parquet in the form that verl reads.
        solutions: Labelled solutions.
        template: Prompt of the judge, for .parquet.
    """
    if out.suffix == ".jsonl":
        write_jsonl(out, [_row(solution) for solution in solutions])
        return
    write_parquet(out, [_verl_row(solution, index, template) for index, solution in enumerate(solutions)])


def solution_row(solution: LabelledSolution, label: int | None) -> dict[str, Any]:
    """Return a solution with a label as a row, which `read_labelled` reads.

    Args:
        solution: Solution; without a reference the row has none.
        label: Index of the first wrong step; None for "no wrong step".

    Returns:
        The row.
    """
    problem = solution.problem
    return {
        "id": problem.id,
        "problem": problem.text,
        **({"reference": problem.reference} if problem.reference else {}),
        "steps": list(solution.steps),
        "label": -1 if label is None else label,
        "source": problem.source,
    }


def _row(solution: LabelledSolution) -> dict[str, Any]:
    """Return a solution as a row of the JSONL file."""
    return solution_row(solution, solution.error_step) | {"policy": solution.problem.meta["policy"]}


def _verl_row(solution: LabelledSolution, index: int, template: Template) -> dict[str, Any]:
    """Return a solution as a row of the Parquet file."""
    row = _row(solution)
    return verl_row(
        data_source=DATA_SOURCE,
        prompt=build_prompt(template, solution.problem.text, solution.problem.reference, solution.steps),
        ability="critique",
        ground_truth=str(row["label"]),
        extra_info={"index": index, "num_steps": len(solution.steps), **row},
    )
