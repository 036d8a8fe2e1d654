"""Load problems and labelled solutions from any source: a file, a Hugging Face id or the miniature."""

from __future__ import annotations

from pathlib import Path

from fapo.data.miniature import sets as miniature
from fapo.data.problems import read_labelled, read_problems
from fapo.types import LabelledSolution, Problem, StepRule


def load_problems(source: str, *, split: str | None = None, limit: int | None = None, seed: int = 0) -> list[Problem]:
    """Load the problems of a source.

    Args:
        source: File (.jsonl, .json, .parquet), Hugging Face id (`owner/name`, `owner/name:config`) or "miniature:NAME".
        split: Split of a Hugging Face data set; None uses the only split. Files and the miniature have no splits.
        limit: Number of problems to load, the first ones; None loads all.
        seed: Seed of the order in which the choices of multiple-choice questions are lettered.

    Returns:
        The problems, in the order of the source; their ids are unique.

    Raises:
        DataError: The source cannot be found or read, or a row cannot be used; the message names the row.
    """
    if miniature.is_miniature(source):
        return miniature.problems(source, limit)
    return read_problems(source, split=_split_of(source, split), limit=limit, seed=seed)


def load_labelled(
    source: str,
    *,
    split: str | None = None,
    limit: int | None = None,
    need_correct: bool = False,
    steps: StepRule = "paragraphs",
) -> list[LabelledSolution]:
    """Load the labelled solutions of a source.

    Args:
        source: File (.jsonl, .json, .parquet), Hugging Face id (`owner/name`, `owner/name:config`) or "miniature:NAME".
        split: Split of a Hugging Face data set; "all" joins its splits. Files and the miniature have no splits.
        limit: Number of solutions to load, the first ones; None loads all.
        need_correct: Whether each row must state `final_answer_correct`. Rows of the miniature are all correct.
        steps: Rule by which the `response` of a row without `steps` is split.

    Returns:
        The labelled solutions, in the order of the source.

    Raises:
        DataError: The source cannot be found or read, or a row cannot be used; the message names the row.
    """
    if miniature.is_miniature(source):
        return miniature.labelled(source, limit)
    return read_labelled(source, split=_split_of(source, split), limit=limit, need_correct=need_correct, steps=steps)


def _split_of(source: str, split: str | None) -> str | None:
    """Return the split to load from a source; None for a file, which has no splits."""
    return None if Path(source).is_file() else split
