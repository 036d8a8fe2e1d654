"""Training and validation sets of a config as Parquet files in verl's format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fapo.config.schema import Config
from fapo.data.verl_rows import verl_row, write_parquet
from fapo.training.datasets import TRAIN, Example, Sets


def write_sets(sets: Sets, folder: Path) -> list[Path]:
    """Write sets, one Parquet file each.

    Args:
        sets: Examples by the name of the set.
        folder: Folder for the files.

    Returns:
        Paths of the files: the training set first, then the validation sets.
    """
    for name, examples in sets.items():
        write_parquet(folder / f"{name}.parquet", verl_rows(name, examples))
    return [folder / f"{name}.parquet" for name in sets]


def parquet_files(config: Config, folder: Path) -> list[Path]:
    """Return the paths of the files that `write_sets` writes for the sets of a config."""
    return [folder / f"{name}.parquet" for name in (TRAIN, *config.data.validation)]


def verl_rows(name: str, examples: Sequence[Example]) -> list[dict[str, Any]]:
    """Return one set as rows of verl.

    Args:
        name: Name of the set. It becomes verl's data source, by which verl separates validation sets.
        examples: Examples of the set.

    Returns:
        One row for each example.
    """
    return [_row(name, index, example) for index, example in enumerate(examples)]


def _row(name: str, index: int, example: Example) -> dict[str, Any]:
    """Return an example as a row; for a GenRM the ground truth is the label of training, -1 for "no wrong step"."""
    problem, solution = example.problem, example.solution
    extra: dict[str, Any] = {
        "index": index,
        "split": name,
        "id": problem.id,
        "problem": problem.text,
        "reference": problem.reference,
        "source": problem.source,
    }
    ground_truth = problem.reference
    if solution:
        ground_truth = str(_number(solution.training_label))
        extra |= {"steps": list(solution.steps), "label": _number(solution.error_step)}
        extra["answer_correct"] = solution.correct
    return verl_row(
        data_source=name,
        prompt=example.prompt,
        ability="critique" if solution else "math",
        ground_truth=ground_truth,
        extra_info=extra,
    )


def _number(label: int | None) -> int:
    """Return a label as a number, -1 for "no wrong step"."""
    return -1 if label is None else label
