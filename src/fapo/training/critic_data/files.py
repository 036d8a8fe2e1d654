"""The labelled solutions as a file: JSONL for fapo and TRL, Parquet in verl's format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fapo.data.jsonl import write_jsonl
from fapo.data.verl_rows import verl_row, write_parquet
from fapo.judge.template import Template, build_prompt
from fapo.types import LabelledSolution

DATA_SOURCE = "fapo-critic"
"""verl's `data_source`, by which a reward function is chosen."""


def write_rows(out: Path, solutions: Sequence[LabelledSolution], template: Template) -> None:
    """The data file, whole or not at all: .jsonl as `read_labelled` reads it, .parquet as verl does."""
    if out.suffix == ".jsonl":
        write_jsonl(out, [_row(solution) for solution in solutions])
        return
    write_parquet(out, [_verl_row(solution, index, template) for index, solution in enumerate(solutions)])


def _row(solution: LabelledSolution) -> dict[str, Any]:
    problem = solution.problem
    return {
        "id": problem.id,
        "problem": problem.text,
        "reference": problem.reference,
        "steps": list(solution.steps),
        "label": -1 if solution.error_step is None else solution.error_step,
        "source": problem.source,
        "policy": problem.meta["policy"],
    }


def _verl_row(solution: LabelledSolution, index: int, template: Template) -> dict[str, Any]:
    row = _row(solution)
    return verl_row(
        data_source=DATA_SOURCE,
        prompt=build_prompt(template, solution.problem.text, solution.problem.reference, solution.steps),
        ability="critique",
        ground_truth=str(row["label"]),
        extra_info={"index": index, "num_steps": len(solution.steps), **row},
    )
