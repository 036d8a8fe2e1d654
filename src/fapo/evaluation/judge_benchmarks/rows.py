"""The rows of a benchmark: where they come from, which of them count, the subset each belongs to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fapo.data.load import load_labelled
from fapo.data.problems import sampling_key
from fapo.errors import ConfigError, DataError
from fapo.evaluation.judge_benchmarks.settings import Benchmark
from fapo.types import LabelledSolution

NUMBERED = re.compile(r"(.+)-\d+")


@dataclass(frozen=True)
class Rows:
    """What a benchmark is made of."""

    counting: tuple[LabelledSolution, ...]
    """The rows that are scored, in the order of the data."""
    subsets: tuple[str, ...]
    """For each of them the subset it belongs to."""
    num_steps: Mapping[str, int]
    """Id -> number of steps, for every row of the data: what a prediction may speak of."""


def load_rows(benchmark: Benchmark, sources: Sequence[str], limit: int | None = None) -> Rows:
    """Rows as in ProcessBench from files, Hugging Face ids (all their splits) or the miniature (miniature:critic-test).

    flawed-positive counts the rows with a right final answer, which every row must state; process counts all. With a
    limit, so many rows of each source, a fixed random choice: files are often sorted, and a larger limit keeps the
    rows of a smaller one. Raises DataError saying where.
    """
    if not sources:
        raise ConfigError("no data given: --data FILE [FILE ...]")
    if limit is not None and limit < 1:
        raise ConfigError(f"limit is {limit}, must be at least 1")
    counting: list[LabelledSolution] = []
    subsets: list[str] = []
    num_steps: dict[str, int] = {}
    for source in sources:
        loaded = load_labelled(source, split="all", need_correct=benchmark == "flawed-positive")
        for row in loaded:
            if row.problem.id in num_steps:
                raise DataError(f"{source}: id {row.problem.id!r} is also in another file; give each file once")
            num_steps[row.problem.id] = len(row.steps)
        usable = [row for row in loaded if row.correct or benchmark == "process"]
        chosen = {row.problem.id for row in sorted(usable, key=lambda row: sampling_key(row.problem.id))[:limit]}
        for row, name in zip(loaded, subset_names(loaded), strict=True):
            if row.problem.id in chosen:
                counting.append(row)
                subsets.append(name)
    if not counting:
        raise DataError(f"{', '.join(sources)}: no row with final_answer_correct true; give such rows")
    return Rows(tuple(counting), tuple(subsets), num_steps)


def subset_names(rows: Sequence[LabelledSolution]) -> list[str]:
    """The subset of each row of a source: what precedes the number if all ids are like gsm8k-12, else the source."""
    found = [NUMBERED.fullmatch(row.problem.id) for row in rows]
    if all(found):
        return [match[1] for match in found if match]
    return [row.problem.source for row in rows]
