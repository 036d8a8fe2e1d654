"""Rows of a benchmark: load them, choose the rows that are scored, and name their subsets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fapo.data.load import load_labelled
from fapo.data.problems import sampling_key
from fapo.data.verl_rows import subset_of
from fapo.errors import ConfigError, DataError
from fapo.evaluation.judge_benchmarks.settings import Benchmark
from fapo.types import LabelledSolution, StepRule

NUMBERED = re.compile(r"(.+)-\d+")
"""Pattern of ids such as gsm8k-12, where the first part names a subset."""


@dataclass(frozen=True)
class Rows:
    """Rows of a benchmark."""

    counting: tuple[LabelledSolution, ...]
    """Rows that are scored, in the order of the data."""
    subsets: tuple[str, ...]
    """Subset of each row that is scored."""
    num_steps: Mapping[str, int]
    """Number of steps by id, for every row of the data. A prediction for any of these ids is accepted."""

    def take(self, indices: Sequence[int]) -> Rows:
        """Return the rows with these indices among those that are scored."""
        return Rows(tuple(self.counting[i] for i in indices), tuple(self.subsets[i] for i in indices), self.num_steps)


def load_rows(
    benchmark: Benchmark, sources: Sequence[str], limit: int | None = None, steps: StepRule = "paragraphs"
) -> Rows:
    """Load the rows of a benchmark, in the format of ProcessBench.

    flawed-positive scores the rows with a correct final answer, and each row must say whether its answer is correct.
    process scores all rows.

    Args:
        benchmark: Name of the benchmark.
        sources: Files, Hugging Face ids (with all their splits) or miniature:critic-test.
        limit: Number of rows of each source that are scored, chosen at random by their ids, since files are often
            sorted. A larger limit keeps the rows of a smaller one. None for all rows.
        steps: Rule by which the `response` of a row without `steps` is split.

    Returns:
        Rows that are scored, with their subsets.

    Raises:
        ConfigError: No source is given.
        DataError: A row cannot be read, two files hold the same id, or no row is left to score.
    """
    if not sources:
        raise ConfigError("no data given: --data FILE [FILE ...]")
    counting: list[LabelledSolution] = []
    subsets: list[str] = []
    num_steps: dict[str, int] = {}
    for source in sources:
        loaded = load_labelled(source, split="all", need_correct=benchmark == "flawed-positive", steps=steps)
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
    """Return the subset of each row of a source.

    It is the subset that the rows themselves name (see `subset_of`), or else the part before the number of ids like
    gsm8k-12, or else the source.

    Args:
        rows: Rows of one source, [num_rows].

    Returns:
        Names, [num_rows].
    """
    subsets = [subset_of(row.problem.meta) for row in rows]
    if all(subsets):
        return subsets
    found = [NUMBERED.fullmatch(row.problem.id) for row in rows]
    if all(found):
        return [match[1] for match in found if match]
    return [row.problem.source for row in rows]
