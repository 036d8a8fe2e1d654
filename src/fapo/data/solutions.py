"""Rows with a solution to be judged, from wherever they come: JSONL, Parquet, standard input, logs of TRL and verl."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fapo.data.columns import COLUMNS, Row, as_question_text, as_scalar_text, find_columns, get_nested
from fapo.data.jsonl import as_object, json_items, parse_row
from fapo.data.problems import answer_of_worked_solution, read_problems
from fapo.data.sources import located_rows
from fapo.data.steps import split_steps
from fapo.errors import DataError
from fapo.types import Problem

Lookup = Callable[[str], Problem | None]
"""From what a policy was asked to the problem, with its reference."""


@dataclass(frozen=True)
class Solution:
    """A solution that somebody wrote."""

    id: str | int | float
    """As the row has it; rows without one are called stem-12, counted from 0."""
    problem: Problem
    """What it answers; the reference is empty where the row only says whether the answer is right."""
    text: str
    """All of it."""
    steps: tuple[str, ...]
    """The steps to be judged: those of the row, or else the text cut by fapo.data.steps; none if it is blank."""
    correct: bool | None
    """Whether the final answer is right, by the row's own word; None where there is a reference to tell."""


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be judged."""

    where: str
    """File and line."""
    reason: str
    """What is wrong with it, with its place."""


def read_solutions(
    source: str | Path, *, name: str = "", references: Lookup | None = None
) -> Iterator[Solution | BadRow]:
    """The solutions of a file, row by row. `name` stands for the file in messages, ids and sources.

    Raises DataError for a file that cannot be read as a whole; a row that makes no sense is a BadRow.
    """
    stem = Path(name or source).stem
    for index, (where, item) in enumerate(_items(Path(source), name or str(source))):
        try:
            row = parse_row(where, item) if isinstance(item, bytes) else as_object(where, item)
            yield _solution(where, row, stem, index, references)
        except DataError as error:
            yield BadRow(where, str(error))


def reference_lookup(source: str | Path) -> Lookup:
    """The problems of a data set by their text; of a prompt around a problem, the longest text found in it."""
    known = {problem.text.strip(): problem for problem in read_problems(source)}

    @functools.lru_cache(maxsize=1024)
    def find(asked: str) -> Problem | None:
        if asked.strip() in known:
            return known[asked.strip()]
        inside = [text for text in known if text in asked]
        return known[max(inside, key=len)] if inside else None

    return find


def _items(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    """What should be rows, with their places: lines of JSONL, so that one bad line is not the end, items of JSON."""
    if not path.is_file() or path.suffix not in (".jsonl", ".json"):
        yield from located_rows(path)
    elif path.suffix == ".json":
        yield from json_items(path)
    else:
        with path.open("rb") as file:
            yield from ((f"{name}:{number}", line) for number, line in enumerate(file, start=1) if line.strip())


def _solution(where: str, row: Row, stem: str, index: int, references: Lookup | None) -> Solution:
    columns = find_columns(where, row, COLUMNS, needed=("problem", "solution"))
    found = {field: (name, get_nested(row, name)) for field, name in columns.items()}
    asked = as_question_text(where, *found["problem"])
    problem = references(asked) if references and "reference" not in found else None
    correct = None
    if problem is None:
        problem = Problem("", asked, _reference(where, found))
        if not problem.reference:
            correct = _correct(where, found, list(row), looked_up=references is not None)
    text, steps = _written(where, *found["solution"])
    column, own = found.get("id", ("id", f"{stem}-{index}"))
    source = as_scalar_text(where, *found["source"]) if "source" in found else stem
    identified = Problem(as_scalar_text(where, column, own), problem.text, problem.reference, source)
    return Solution(own, identified, text, steps, correct)


def _reference(where: str, found: dict[str, tuple[str, Any]]) -> str:
    """The final answer that is right; empty if the row does not have it."""
    if "reference" not in found:
        return ""
    column, value = found["reference"]
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 1:
        value = value[0]
    answer = answer_of_worked_solution(as_scalar_text(where, column, value))
    if not answer:
        raise DataError(f"{where}: {column} holds no final answer: {str(value)[-40:]!r}")
    return answer


def _correct(where: str, found: dict[str, tuple[str, Any]], columns: list[str], *, looked_up: bool) -> bool:
    if "correct" not in found:
        why = "its problem is not among the references" if looked_up else "or give the data set: --references DATA"
        raise DataError(
            f"{where}: no right answer: expected {' or '.join(COLUMNS['reference'])}; "
            f"its columns are {', '.join(columns)}; {why}"
        )
    column, value = found["correct"]
    if not isinstance(value, bool):
        raise DataError(f"{where}: {column} is {str(value)[:40]!r}, must be true or false")
    return value


def _written(where: str, column: str, value: Any) -> tuple[str, tuple[str, ...]]:
    """The text of a solution and its steps."""
    if column.lower() == "steps":
        if not isinstance(value, list) or not all(isinstance(step, str) for step in value):
            raise DataError(f"{where}: {column} must be a list of texts, is {str(value)[:40]!r}")
        text = "\n\n".join(value)
        return text, tuple(value) if text.strip() else ()
    if isinstance(value, list):
        said = [turn.get("content") for turn in value if isinstance(turn, dict) and turn.get("role") == "assistant"]
        value = said[-1] if said else value
    if not isinstance(value, str):
        raise DataError(f"{where}: {column} must be a text or a conversation, is {str(value)[:40]!r}")
    return value, tuple(split_steps(value)) if value.strip() else ()
