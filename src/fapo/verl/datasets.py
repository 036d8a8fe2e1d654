"""What a config trains and validates on, as Parquet files in verl's format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fapo.config.schema import Config
from fapo.data.verl_rows import verl_row, write_parquet
from fapo.training.datasets import Example, load_sets


def write_sets(config: Config, folder: Path) -> list[Path]:
    """One file for each set, `train.parquet` and those of the validation sets; returns them in this order."""
    for name, examples in load_sets(config).items():
        write_parquet(folder / f"{name}.parquet", rows(name, examples))
    return files(config, folder)


def files(config: Config, folder: Path) -> list[Path]:
    """Where `write_sets` writes."""
    return [folder / f"{name}.parquet" for name in ("train", *config.data.validation)]


def rows(name: str, examples: Sequence[Example]) -> list[dict[str, Any]]:
    """The rows of one set; its name is verl's data source, by which verl tells validation sets apart."""
    return [_row(name, index, example) for index, example in enumerate(examples)]


def _row(name: str, index: int, example: Example) -> dict[str, Any]:
    problem, solution = example.problem, example.solution
    extra: dict[str, Any] = {
        "index": index,
        "split": name,
        "id": problem.id,
        "problem": problem.text,
        "reference": problem.reference,
        "source": problem.source,
    }
    truth = problem.reference
    if solution:
        label = -1 if solution.error_step is None else solution.error_step
        truth = str(label)
        extra |= {"steps": list(solution.steps), "label": label}
    return verl_row(
        data_source=name,
        prompt=example.prompt,
        ability="critique" if solution else "math",
        ground_truth=truth,
        extra_info=extra,
    )
