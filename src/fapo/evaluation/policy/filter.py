"""Choose questions by their solve rate in the output of `fapo eval`, for training on those that are worth it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fapo.data.files import check_jsonl_name, check_not_overwriting
from fapo.data.jsonl import jsonl_rows, write_jsonl
from fapo.errors import DataError
from fapo.evaluation.policy.settings import FilterSettings


@dataclass(frozen=True)
class FilterCounts:
    """Number of questions by what became of them."""

    kept: int
    """Number of questions with a solve rate between the bounds."""
    below: int
    """Number of questions with a lower solve rate."""
    above: int
    """Number of questions with a higher solve rate."""
    unanswered: int
    """Number of questions without a sample: all requests failed."""


def filter_problems(settings: FilterSettings) -> FilterCounts:
    """Write the questions with a solve rate between two bounds; the solve rate is correct samples / samples.

    Training needs unique ids, so an id that two sources share gets the name of its source.

    Args:
        settings: Output of an evaluation, output file and bounds, which are included.

    Returns:
        Number of questions that are kept and left out.

    Raises:
        ConfigError: The output file is the input file, or its name is that of another format.
        DataError: A row is not one of `fapo eval`, or no question is kept.
    """
    check_not_overwriting(settings.out, (str(settings.evaluation),))
    check_jsonl_name(settings.out)
    if not settings.evaluation.is_file():
        raise DataError(f"{settings.evaluation}: no such file; give the output of `fapo eval`")
    kept: list[dict[str, Any]] = []
    below = above = unanswered = 0
    for row, rate in _rated(settings.evaluation):
        below += rate is not None and rate < settings.min_rate
        above += rate is not None and rate > settings.max_rate
        unanswered += rate is None
        if rate is not None and settings.min_rate <= rate <= settings.max_rate:
            names = ("id", "source", "problem", "reference", "num_samples", "num_correct")
            kept.append({name: row[name] for name in names} | {"solve_rate": rate})
    if not kept:
        raise DataError(
            f"{settings.evaluation}: no question has a solve rate from {settings.min_rate:g} to {settings.max_rate:g} "
            f"({below} lower, {above} higher, {unanswered} without a sample); change the bounds"
        )
    times = Counter(row["id"] for row in kept)
    write_jsonl(
        settings.out,
        [row | {"id": f"{row['source']}-{row['id']}"} if times[row["id"]] > 1 else row for row in kept],
    )
    return FilterCounts(len(kept), below, above, unanswered)


def _rated(path: Path) -> Iterator[tuple[dict[str, Any], float | None]]:
    """Yield the rows of an evaluation with their solve rates, None without a sample; raise DataError for other rows."""
    for where, row in jsonl_rows(path):
        num, correct = row.get("num_samples"), row.get("num_correct")
        texts = [row.get(name) for name in ("id", "source", "problem", "reference")]
        if (
            type(num) is not int
            or type(correct) is not int
            or not 0 <= correct <= num
            or not all(isinstance(text, str) for text in texts)
        ):
            raise DataError(f"{where}: not a row of `fapo eval` (id, problem, reference, num_samples, num_correct)")
        yield row, correct / num if num else None
