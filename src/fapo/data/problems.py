"""Read problems and labelled solutions from files and Hugging Face data sets, and ask a policy a question."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from fapo.data.columns import (
    COLUMNS,
    LABEL_COLUMNS,
    Row,
    as_question_text,
    as_scalar_text,
    find_columns,
    get_nested,
    only_item,
)
from fapo.data.final_answers import extract
from fapo.data.labelled_forms import labelled_rows
from fapo.data.multiple_choice import with_choices
from fapo.data.sources import read_rows, source_name
from fapo.data.steps import split_steps
from fapo.errors import ConfigError, DataError
from fapo.types import LabelledSolution, Message, Problem, StepRule


def read_problems(
    source: str | Path,
    *,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> list[Problem]:
    """Read the problems of a file or of a Hugging Face data set.

    Args:
        source: File (.jsonl, .json, .parquet) or Hugging Face id (`owner/name`, `owner/name:config`).
        split: Split of a Hugging Face data set; None uses the only split.
        limit: Number of rows to read, the first ones; None reads all.
        seed: Seed of the order in which the choices of multiple-choice questions are lettered.

    Returns:
        The problems. A row without an id is called `source-12`, counted from 0; other columns become `meta`.

    Raises:
        ConfigError: The split does not fit.
        DataError: The source cannot be read, or a row does not fit; the message has file and line.
    """
    return [problem for _, _, problem in _problems(source, split, limit, seed=seed)]


def read_labelled(
    source: str | Path,
    *,
    split: str | None = None,
    limit: int | None = None,
    need_correct: bool = False,
    steps: StepRule = "paragraphs",
) -> list[LabelledSolution]:
    """Read labelled solutions from a file or a Hugging Face data set, with the columns of ProcessBench or FAPO-Critic.

    A row has a problem, a solution and a `label`, the index of its first wrong step (-1 for none). The solution is
    `steps` (list of texts) or `response` (a text, which is split into steps). A reference, a `critique` and
    `final_answer_correct` are optional. `labelled_rows` has the forms of public benchmarks that are read, too.

    Args:
        source: File (.jsonl, .json, .parquet) or Hugging Face id (`owner/name`, `owner/name:config`).
        split: Split of a Hugging Face data set; None uses the only split.
        limit: Number of rows to read, the first ones; None reads all.
        need_correct: Whether each row must have `final_answer_correct`. If not, a row without it counts as correct,
            because critic data consists of solutions with a correct answer.
        steps: Rule by which the `response` of a row without `steps` is split.

    Returns:
        The labelled solutions.

    Raises:
        ConfigError: The split does not fit.
        DataError: The source cannot be read, or a row does not fit; the message has file and line.
    """
    solutions = []
    for where, row, problem in _problems(source, split, limit, labelled=True):
        if need_correct and "final_answer_correct" not in row:
            raise DataError(f"{where}: no final_answer_correct: true or false is needed to choose the rows that count")
        parts, label, correct = _steps(where, row, steps), row.get("label"), row.get("final_answer_correct", True)
        if not isinstance(label, int) or isinstance(label, bool) or not -1 <= label < len(parts):
            raise DataError(f"{where}: label is {label!r}, must be an integer from -1 to {len(parts) - 1}")
        if not isinstance(correct, bool):
            raise DataError(f"{where}: final_answer_correct is {correct!r}, must be true or false")
        critique = row.get("critique") or ""
        if not isinstance(critique, str):
            raise DataError(f"{where}: critique is a {type(critique).__name__}, must be a text")
        solutions.append(LabelledSolution(problem, parts, None if label == -1 else label, correct, critique))
    return solutions


def sampling_key(id: str) -> bytes:
    """Return a hash of the id. Sorting by it gives a reproducible random order, from which a subset is taken."""
    return hashlib.sha256(id.encode("utf-8", "backslashreplace")).digest()


def built_in_prompts() -> dict[str, Path]:
    """Return the built-in prompts of policies: the file of each name."""
    return {file.stem: file for file in sorted((Path(__file__).parent / "prompts").glob("*.txt"))}


def load_prompt(name_or_path: str | Path | None) -> str:
    """Load the prompt of a policy.

    Args:
        name_or_path: Built-in prompt (boxed, gsm8k), or a text file with `{{problem}}` in the place of the question;
            None for the question alone.

    Returns:
        The text of the file without its final newline.

    Raises:
        ConfigError: The file cannot be read, or `{{problem}}` is missing.
    """
    if name_or_path is None:
        return "{{problem}}"
    file, built_in = Path(name_or_path), built_in_prompts()
    try:
        prompt = built_in.get(str(file), file).read_text(encoding="utf-8-sig").removesuffix("\n")
    except (FileNotFoundError, IsADirectoryError):
        raise ConfigError(
            f"{file}: no such file; give a text file with the prompt, {{{{problem}}}} in it, or {' or '.join(built_in)}"
        ) from None
    except UnicodeDecodeError as failure:
        raise ConfigError(
            f"{file}: not UTF-8 text ({failure.reason} at byte {failure.start}); save the prompt as UTF-8"
        ) from None
    if "{{problem}}" not in prompt:
        raise ConfigError(f"{file}: {{{{problem}}}} is missing; write it where the question belongs")
    return prompt


def question_messages(prompt: str, problem: Problem) -> list[Message]:
    """Write the conversation that asks a policy one question.

    Args:
        prompt: Text with `{{problem}}` in the place of the question, as from `load_prompt`.
        problem: Problem to be solved.

    Returns:
        A conversation with one user message.
    """
    return [{"role": "user", "content": prompt.replace("{{problem}}", problem.text)}]


def answer_of_worked_solution(answer: str) -> str:
    r"""Return the final answer of a worked solution: after "####", else in the last box, else the whole text.

    A JSON object, such as the unit tests of a program, is no worked solution and is returned as it is.
    """
    if _is_json_object(answer):
        return answer.strip()
    if "####" in answer:
        return answer.rsplit("####", 1)[1].strip()
    return extract(answer) or answer.strip()


def as_final_answer(where: str, name: str, value: Any) -> str:
    """Read a right answer as `as_scalar_text` does, of a worked solution the final one; raise DataError for none."""
    text = as_scalar_text(where, name, only_item(value))
    answer = answer_of_worked_solution(text)
    if not answer:
        raise DataError(f"{where}: {name} holds no final answer: {text[-40:]!r}")
    return answer


def _is_json_object(text: str) -> bool:
    """Return whether a text is a JSON object."""
    if not text.lstrip().startswith("{"):
        return False
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _problems(
    source: str | Path,
    split: str | None,
    limit: int | None,
    labelled: bool = False,
    seed: int = 0,
) -> Iterator[tuple[str, Row, Problem]]:
    """Yield each row with its place and its problem; ids are unique, and a labelled row needs no reference."""
    aliases = {field: COLUMNS[field] for field in ("id", "problem", "reference")}
    name = source_name(source)
    places: dict[str, str] = {}  # id -> place of its row
    read = (
        (where, row)
        for where, stored in read_rows(source, split)
        for row in (labelled_rows(where, stored) if labelled else [with_choices(where, stored, seed)])
    )
    for index, (where, row) in enumerate(islice(read, limit)):
        used = find_columns(where, row, aliases, {"problem"} if labelled else {"problem", "reference"})
        found = {field: (column, get_nested(row, column)) for field, column in used.items()}
        rest = set(row) - set(used.values()) - (LABEL_COLUMNS if labelled else set())
        problem = Problem(
            id=as_scalar_text(where, *found["id"]) if "id" in found else f"{name}-{index}",
            text=as_question_text(where, *found["problem"]),
            reference=as_final_answer(where, *found["reference"]) if "reference" in found else "",
            source=name,
            meta={column: row[column] for column in row if column in rest},
        )
        if problem.id in places:
            raise DataError(f"{where}: id {problem.id!r} is already that of {places[problem.id]}; make it unique")
        places[problem.id] = where
        yield where, row, problem
    if not places and limit != 0:
        raise DataError(f"{source} is empty; give a source with at least one row")


def _steps(where: str, row: Row, rule: StepRule) -> tuple[str, ...]:
    """Return the steps of a labelled row, or raise DataError with its place."""
    steps, response = row.get("steps"), row.get("response")
    if steps is None and isinstance(response, str):
        steps = split_steps(response, rule)
    if not isinstance(steps, Sequence) or isinstance(steps, str) or not all(isinstance(step, str) for step in steps):
        raise DataError(f"{where}: needs steps, a list of texts, or response, a text")
    if not steps:
        raise DataError(f"{where}: the solution has no steps; remove the row, or give steps")
    return tuple(steps)
