"""Read solutions to be judged from JSONL, JSON, Parquet, standard input, and logs of TRL and verl."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fapo.data.columns import COLUMNS, Row, as_question_text, as_scalar_text, find_columns, get_nested
from fapo.data.jsonl import as_object, json_items, parse_row
from fapo.data.load import load_problems
from fapo.data.problems import as_final_answer
from fapo.data.sources import read_rows
from fapo.data.trajectory import judged_steps, make_rollout, opens_thinking
from fapo.errors import DataError
from fapo.types import Given, Problem, StepRule

Lookup = Callable[[str], Problem | None]
"""Function that finds the problem, with its reference, from the text of a prompt; None if there is none."""


@dataclass(frozen=True)
class Solution:
    """A solution to be judged."""

    id: str | int | float
    """Id of the row, with its type; a row without an id is called `name-12`, counted from 0."""
    problem: Problem
    """Problem that it answers; the reference is empty if the row only says whether the answer is correct."""
    text: str
    """Text that holds the answer: the last assistant turn of a conversation, without thinking."""
    steps: tuple[str | Given, ...]
    """Steps to be judged: those of the row, or else those of `judged_steps`; empty for a blank solution."""
    correct: bool | None
    """Whether the final answer is correct, according to the row; None if there is a reference."""


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be judged."""

    where: str
    """File and line of the row."""
    reason: str
    """Error message, with the place."""


def read_solutions(
    source: str | Path, *, name: str = "", references: Lookup | None = None, steps: StepRule = "paragraphs"
) -> Iterator[Solution | BadRow]:
    """Read the solutions of a file row by row.

    Args:
        source: File (.jsonl, .json, .parquet) or Hugging Face id.
        name: Name of the file in messages, ids and sources; by default `source`.
        references: Finds the problem of a row that has no reference.
        steps: Rule by which texts are split into steps.

    Yields:
        A solution for each row, or for each sample of a row that `fapo eval` wrote; or a `BadRow` for a row that cannot
        be used.

    Raises:
        DataError: The file cannot be read.
    """
    stem = Path(name or source).stem
    for index, (where, item) in enumerate(_items(Path(source), name or str(source))):
        try:
            row = parse_row(where, item) if isinstance(item, bytes) else as_object(where, item)
            for part in _samples(where, row):
                yield _solution(where, part, stem, index, references, steps)
        except DataError as error:
            yield BadRow(where, str(error))


def reference_lookup(source: str) -> Lookup:
    """Return a function that finds a problem of a data set by its text, or by a prompt that contains its text.

    Args:
        source: Data set: a file, a Hugging Face id or "miniature:NAME".

    Returns:
        The function. If a prompt contains several problems, it finds the one with the longest text. A text inside a
        word, a number or a formula is none: "1+1" is not in "11+1" or "-1+1".

    Raises:
        DataError: The data set cannot be read.
    """
    known = {problem.text.strip(): problem for problem in load_problems(source)}

    @functools.lru_cache(maxsize=1024)
    def find(prompt: str) -> Problem | None:
        if prompt.strip() in known:
            return known[prompt.strip()]
        inside = [text for text in known if text in prompt and _stands_alone(text, prompt)]
        return known[max(inside, key=len)] if inside else None

    return find


def _stands_alone(text: str, prompt: str) -> bool:
    """Return whether a text is somewhere in a prompt without a letter, a digit, a decimal or a term beside it."""
    before = r"(?<![0-9A-Za-z])(?<![0-9][.*])(?<![-−+/^](?=[0-9]))"  # not just "*", since **1+1** is bold
    after = r"(?![A-Za-z]|[-−+*/^.]?[0-9])"
    return re.search(f"{before}{re.escape(text)}{after}", prompt) is not None


def _items(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the unparsed rows with their places: of JSONL the lines, so that one bad line does not stop the others."""
    if not path.is_file() or path.suffix not in (".jsonl", ".json"):
        yield from read_rows(path)
    elif path.suffix == ".json":
        yield from json_items(path)
    else:
        with path.open("rb") as file:
            yield from ((f"{name}:{number}", line) for number, line in enumerate(file, start=1) if line.strip())


def _samples(where: str, row: Row) -> list[Row]:
    """Return a row for each sample of a question that `fapo eval` wrote; any other row as it is."""
    samples = row.get("samples")
    if not isinstance(samples, list) or any(name in row for name in COLUMNS["solution"]):
        return [row]
    if not all(isinstance(sample, dict) and isinstance(sample.get("response"), str) for sample in samples):
        raise DataError(f"{where}: samples must be a list of objects with a response, as `fapo eval` writes them")
    return [
        {**row, "id": f"{row.get('id')}-{number}", "response": sample["response"]}
        for number, sample in enumerate(samples)
    ]


def _solution(where: str, row: Row, stem: str, index: int, references: Lookup | None, rule: StepRule) -> Solution:
    """Return the solution in a row, or raise DataError with its place."""
    columns = find_columns(where, row, COLUMNS, needed=("problem", "solution"))
    found = {field: (name, get_nested(row, name)) for field, name in columns.items()}
    question = as_question_text(where, *found["problem"])
    problem = references(question) if references and "reference" not in found else None
    correct = None
    if problem is None:
        reference = as_final_answer(where, *found["reference"]) if "reference" in found else ""
        problem = Problem("", question, reference)
        if not problem.reference:
            correct = _correct(where, found, list(row), is_unknown=references is not None)
    text, steps = _text_and_steps(where, problem, *found["solution"], rule, opens_thinking(question))
    column, own = found.get("id", ("id", f"{stem}-{index}"))
    source = as_scalar_text(where, *found["source"]) if "source" in found else stem
    identified = Problem(as_scalar_text(where, column, own), problem.text, problem.reference, source)
    return Solution(own, identified, text, steps, correct)


def _correct(where: str, found: dict[str, tuple[str, Any]], columns: list[str], *, is_unknown: bool) -> bool:
    """Return whether the row says that its final answer is correct; `is_unknown`: the references lack its problem."""
    if "correct" not in found:
        why = "its problem is not among the references" if is_unknown else "or give the data set: --references DATA"
        raise DataError(
            f"{where}: no right answer: expected {' or '.join(COLUMNS['reference'])}; "
            f"its columns are {', '.join(columns)}; {why}"
        )
    column, value = found["correct"]
    if not isinstance(value, bool):
        raise DataError(f"{where}: {column} is {str(value)[:40]!r}, must be true or false")
    return value


def _text_and_steps(
    where: str, problem: Problem, column: str, value: Any, rule: StepRule, thinking: bool
) -> tuple[str, tuple[str | Given, ...]]:
    """Return the text of a solution with its answer, and its steps; `thinking`: its prompt opens a thinking block."""
    if column.lower() == "steps":
        if not isinstance(value, list) or not all(isinstance(step, str) for step in value):
            raise DataError(f"{where}: {column} must be a list of texts, is {str(value)[:40]!r}")
        text = "\n\n".join(value)
        return text, tuple(value) if text.strip() else ()
    try:
        rollout = make_rollout(problem, value, truncated=thinking, thinking=thinking)  # unclosed: it was cut off
    except DataError as error:
        raise DataError(f"{where}: {column} {error}") from None
    is_blank = not rollout.earlier_turns and not rollout.response.strip()
    return rollout.response, () if is_blank else tuple(judged_steps(rollout, rule))
