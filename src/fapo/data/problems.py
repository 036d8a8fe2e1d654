"""Data sets -> Problem and LabelledSolution; JSONL records, written so that a crash costs at most the last line."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from fapo.data.columns import COLUMNS, LABEL_COLUMNS, Row, as_question_text, as_scalar_text, find_columns, get_nested
from fapo.data.final_answers import extract
from fapo.data.multiple_choice import with_choices
from fapo.data.sources import _stem, located_rows
from fapo.data.steps import split_steps
from fapo.errors import ConfigError, DataError
from fapo.types import LabelledSolution, Message, Problem

PROBLEM_FIELDS = ("id", "problem", "reference", "source")
"""Fields of `COLUMNS` that make a Problem."""


def read_problems(
    source: str | Path,
    *,
    split: str | None = None,
    limit: int | None = None,
    columns: Mapping[str, str] | None = None,
    seed: int = 0,
) -> list[Problem]:
    """Problems from a .jsonl, .json or .parquet file or a Hugging Face id (`owner/name`, `owner/name:config`).

    `columns` maps fields (id, problem, reference, source) to column names ("a.b" reaches into a column) where
    the usual names do not fit. Rows without an id are called `stem-12`, counted from 0. Columns that become no field
    go into `meta`. Multiple choice (fapo.data.multiple_choice) is lettered in an order drawn by the seed. Raises DataError saying
    where for a row that does not fit.
    """
    problems = [problem for _, _, problem in _problems(source, split, limit, columns or {}, seed=seed)]
    if not problems and limit != 0:
        raise DataError(f"{source}: no problems in it; give a source with at least one row")
    return problems


def read_labelled(
    source: str | Path,
    *,
    split: str | None = None,
    limit: int | None = None,
    columns: Mapping[str, str] | None = None,
    need_correct: bool = False,
) -> list[LabelledSolution]:
    """Labelled solutions, from the same kinds of sources: rows as in ProcessBench.

    A row has a problem, `steps` (list of texts) or `response` (one text, cut by fapo.data.steps), `label` (index of the
    first wrong step, -1 for none); optionally a reference, a `critique` and `final_answer_correct`, which is true where
    left out (critic data is made of solutions with a right answer) unless `need_correct`: then it must be there.
    """
    solutions = []
    for where, row, problem in _problems(source, split, limit, columns or {}, labelled=True):
        if need_correct and "final_answer_correct" not in row:
            raise DataError(f"{where}: no final_answer_correct: true or false is needed to choose the rows that count")
        steps, label, correct = _steps(where, row), row.get("label"), row.get("final_answer_correct", True)
        if not isinstance(label, int) or isinstance(label, bool) or not -1 <= label < len(steps):
            raise DataError(f"{where}: label is {label!r}, must be an integer from -1 to {len(steps) - 1}")
        if not isinstance(correct, bool):
            raise DataError(f"{where}: final_answer_correct is {correct!r}, must be true or false")
        critique = row.get("critique") or ""
        if not isinstance(critique, str):
            raise DataError(f"{where}: critique is a {type(critique).__name__}, must be a text")
        solutions.append(LabelledSolution(problem, steps, None if label == -1 else label, correct, critique))
    if not solutions and limit != 0:
        raise DataError(f"{source}: no labelled solutions in it; give a source with at least one row")
    return solutions


def check_not_overwriting(out: Path, sources: Iterable[str | Path]) -> None:
    """Raise ConfigError if writing `out` would overwrite one of the sources."""
    for source in sources:
        if out.exists() and Path(source).exists() and out.samefile(source):
            raise ConfigError(f"{out}: is one of the files to read; give another --out")


def sampling_key(id: str) -> bytes:
    """Return a hash of the id. Sorting by it gives a reproducible random order, from which a subset is taken."""
    return hashlib.sha256(id.encode("utf-8", "backslashreplace")).digest()


def load_prompt(file: str | Path | None) -> str:
    """A policy's prompt with {{problem}}, the place of the question; without a file the question as it stands."""
    if file is None:
        return "{{problem}}"
    try:
        prompt = Path(file).read_text(encoding="utf-8-sig").removesuffix("\n")
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file; give a text file with the prompt, {{{{problem}}}} in it") from None
    except UnicodeDecodeError as failure:
        raise ConfigError(
            f"{file}: not UTF-8 text ({failure.reason} at byte {failure.start}); save the prompt as UTF-8"
        ) from None
    if "{{problem}}" not in prompt:
        raise ConfigError(f"{file}: {{{{problem}}}} is missing; write it where the question belongs")
    return prompt


def question_messages(prompt: str, problem: Problem) -> list[Message]:
    """Return the conversation that asks a policy one question.

    Args:
        prompt: Text with `{{problem}}`, the place of the question, as from `load_prompt`.
        problem: Problem whose text is filled in.
    """
    return [{"role": "user", "content": prompt.replace("{{problem}}", problem.text)}]


# ------------------------------------------------------------------------------------------------------ row -> record


def _problems(
    source: str | Path,
    split: str | None,
    limit: int | None,
    columns: Mapping[str, str],
    labelled: bool = False,
    seed: int = 0,
) -> Iterator[tuple[str, Row, Problem]]:
    """Each row with its place and its problem; ids are unique. A labelled row needs no reference."""
    if unknown := sorted(set(columns) - set(PROBLEM_FIELDS)):
        raise ConfigError(f"columns maps {', '.join(unknown)}, but a problem has only {', '.join(PROBLEM_FIELDS)}")
    aliases = {field: COLUMNS[field] for field in PROBLEM_FIELDS if field != "source"}  # the source is the data set
    stem = _stem(source)
    seen: dict[str, str] = {}
    for index, (where, read) in enumerate(islice(located_rows(source, split), limit)):
        row = read if labelled else with_choices(where, read, seed)
        needed = {"problem", *columns} if labelled else {"problem", "reference", *columns}
        used = find_columns(where, row, aliases | {field: (name,) for field, name in columns.items()}, needed)
        values = {field: get_nested(row, name) for field, name in used.items()}
        scalars = {field: as_scalar_text(where, used[field], values[field]) for field in used if field != "problem"}
        rest = set(row) - set(used.values()) - (LABEL_COLUMNS if labelled else set())
        problem = Problem(
            id=scalars.get("id", f"{stem}-{index}"),
            text=as_question_text(where, used["problem"], values["problem"]),
            reference=answer_of_worked_solution(scalars.get("reference", "")),
            source=scalars.get("source", stem),
            meta={name: row[name] for name in row if name in rest},
        )
        if not problem.reference and "reference" in used:
            raise DataError(f"{where}: {used['reference']} holds no final answer: {scalars['reference'][-40:]!r}")
        if problem.id in seen:
            raise DataError(f"{where}: id {problem.id!r} is already that of {seen[problem.id]}; make it unique")
        seen[problem.id] = where
        yield where, row, problem


def answer_of_worked_solution(answer: str) -> str:
    r"""Return the final answer of a worked solution: after GSM8K's "####", else in the last box, else all."""
    if "####" in answer:
        return answer.rsplit("####", 1)[1].strip()
    return extract(answer) or answer.strip()


def _steps(where: str, row: Row) -> tuple[str, ...]:
    steps, response = row.get("steps"), row.get("response")
    if steps is None and isinstance(response, str):
        steps = split_steps(response)
    if not isinstance(steps, Sequence) or isinstance(steps, str) or not all(isinstance(step, str) for step in steps):
        raise DataError(f"{where}: needs steps, a list of texts, or response, a text")
    if not steps:
        raise DataError(f"{where}: the solution has no steps; remove the row, or give steps")
    return tuple(steps)


# ------------------------------------------------------------------------------------------------------------ writing


def finite(value: Any) -> Any:
    """Return the value with null for each number that is not finite, at any depth: JSON has no NaN or infinity."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def finite_number(value: Any) -> float | None:
    """Return a number read from a file as a float; None for anything that is no finite number, bool included."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if number and math.isfinite(value) else None
