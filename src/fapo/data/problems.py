"""Data sets -> Problem and LabelledSolution; JSONL records, written so that a crash costs at most the last line."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from io import BufferedRandom
from itertools import islice
from pathlib import Path
from typing import Any

from fapo.choices import with_choices
from fapo.columns import COLUMNS, Row, as_question_text, as_scalar_text, find_columns, get_nested
from fapo.errors import ConfigError, DataError
from fapo.files import atomic_path
from fapo.final_answer import extract
from fapo.steps import split as split_steps
from fapo.types import Message, Problem

PROBLEM_FIELDS = ("id", "problem", "reference", "source")
"""Fields of `COLUMNS` that make a Problem."""
LABEL_COLUMNS = {"steps", "response", "label", "final_answer_correct", "critique"}
HUB_ID = re.compile(r"([\w.-]+/[\w.-]+?)(?::([\w.-]+))?")

Located = tuple[str, Row]
"""Where a row stands ("file:line"), and the row."""


@dataclass(frozen=True)
class LabelledSolution:
    """A solution whose first wrong step is known: what a GenRM is trained and evaluated on."""

    problem: Problem
    """What it answers; the reference is empty where the data has none."""
    steps: tuple[str, ...]
    """The solution, cut into the steps the label counts."""
    error_step: int | None
    """Index (from 0) of the first wrong step; None for "no wrong step"."""
    correct: bool
    """Whether its final answer is right."""
    critique: str = ""
    """A critique that says so, for a GenRM to imitate; empty where the data has none."""
    mislabelled: bool = False
    """Whether label noise replaces the label: training then uses `wrong_step` instead of `error_step`."""
    wrong_step: int | None = None
    """Wrong label used for training when `mislabelled` is set; None means "no wrong step"."""

    @property
    def training_label(self) -> int | None:
        """Label used for training, which may be noisy; measurements use `error_step`."""
        return self.wrong_step if self.mislabelled else self.error_step


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
    go into `meta`. Multiple choice (fapo.choices) is lettered in an order drawn by the seed. Raises DataError saying
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

    A row has a problem, `steps` (list of texts) or `response` (one text, cut by fapo.steps), `label` (index of the
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


def read_jsonl(path: str | Path, *, ignore_torn_tail: bool = False) -> Iterator[Row]:
    """The rows of a JSONL file, one by one; blank lines are skipped. Raises DataError with file:line for a line that
    is no JSON object, except, if asked, for a last line that was cut off while being written (it has no newline)."""
    return (row for _, row in _jsonl(Path(path), ignore_torn_tail))


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any] | Any], *, append: bool = False) -> None:
    """Write rows (mappings or dataclasses), one a line. A new file appears whole or not at all.

    With `append` the rows are added in one write, so that several writers do not mix lines; a torn last line, left by
    a crash, is removed first.
    """
    path = Path(path)
    content = b"".join(_line(row) for row in rows)
    if not append:
        with atomic_path(path) as draft:
            draft.write_bytes(content)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        _mend_tail(file)
        file.write(content)


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


# ----------------------------------------------------------------------------------------------------- source -> rows


def _stem(source: str | Path) -> str:
    path = Path(source)
    return path.stem if path.suffix in (".jsonl", ".json", ".parquet") else path.name.partition(":")[0]


def located_rows(source: str | Path, split: str | None = None) -> Iterator[Located]:
    """The rows of a .jsonl, .json or .parquet file or of a Hugging Face data set, each with its place."""
    path = Path(source)
    if path.is_file():
        if split is not None:
            raise ConfigError(f"{path}: split={split!r} is for Hugging Face data sets, a file has none; leave it out")
        readers = {".jsonl": _jsonl, ".json": _json, ".parquet": _parquet}
        if path.suffix not in readers:
            raise DataError(f"{path}: unknown kind of file, must be one of {', '.join(readers)}")
        return readers[path.suffix](path)
    hub_id = HUB_ID.fullmatch(str(source))
    if path.exists() or not hub_id or path.suffix in (".jsonl", ".json", ".parquet"):
        raise DataError(f"{source}: neither a file nor a Hugging Face id (owner/name or owner/name:config); correct it")
    return _hub(hub_id[1], hub_id[2], split)


def as_object(where: str, row: Any) -> Row:
    """The row itself. Raises DataError, with its place, if it is no JSON object."""
    if not isinstance(row, dict):
        raise DataError(f"{where}: must be a JSON object, is a {type(row).__name__}")
    return row


def _parse(where: str, content: bytes) -> Any:
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as failure:
        raise DataError(f"{where}: invalid UTF-8 at byte {failure.start}; save it as UTF-8") from None
    except RecursionError:
        raise DataError(f"{where}: JSON nested too deeply") from None
    except ValueError as failure:
        raise DataError(f"{where}: invalid JSON: {failure}") from None


def parse_row(where: str, line: bytes) -> Row:
    """One line of a JSONL file. Raises DataError, with its place, if it is no JSON object."""
    return as_object(where, _parse(where, line))


def _jsonl(path: Path, ignore_torn_tail: bool = False) -> Iterator[Located]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}:{number}"
            if not line.strip():
                continue
            try:
                row = parse_row(where, line)
            except DataError:
                if ignore_torn_tail and not line.endswith(b"\n"):
                    return
                raise
            yield where, row


def json_items(path: Path) -> Iterator[tuple[str, Any]]:
    """What the list in a .json file holds, each with its place. Raises DataError if it is no list."""
    items = _parse(str(path), path.read_bytes())
    if not isinstance(items, list):
        raise DataError(f"{path}: must be a list of objects, is a {type(items).__name__}")
    yield from ((f"{path}[{index}]", item) for index, item in enumerate(items))


def _json(path: Path) -> Iterator[Located]:
    return ((where, as_object(where, item)) for where, item in json_items(path))


def _parquet(path: Path) -> Iterator[Located]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ConfigError(f"{path}: reading Parquet needs pyarrow: pip install 'fapo[train]'") from None
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            start = 0
            for batch in file.iter_batches():
                for index, row in enumerate(_decoded(path, start, batch), start):
                    yield f"{path}[{index}]", row
                start += len(batch)
    except pyarrow.ArrowInvalid as failure:
        raise DataError(f"{path}: invalid Parquet: {failure}") from None


def _decoded(path: Path, start: int, batch: Any) -> list[Row]:
    """The rows of a batch; one that is not UTF-8 is looked for only when there is one."""
    try:
        rows: list[Row] = batch.to_pylist()
    except UnicodeDecodeError as failure:
        if len(batch) > 1:
            half = len(batch) // 2
            return _decoded(path, start, batch[:half]) + _decoded(path, start + half, batch[half:])
        raise DataError(f"{path}[{start}]: invalid UTF-8 at byte {failure.start} of a text") from None
    return rows


def _hub(name: str, config: str | None, split: str | None) -> Iterator[Located]:
    try:
        import datasets
    except ImportError:
        raise ConfigError(f"{name}: data sets of the Hub need `datasets`: pip install 'fapo[train]'") from None
    try:
        table = datasets.load_dataset(name, config, split=split)
    except ConnectionError as failure:
        raise DataError(
            f"{name}: no such file, and the Hugging Face Hub cannot be reached: {failure}; "
            "correct the path, or connect to the network"
        ) from None
    except (FileNotFoundError, ValueError) as failure:  # no such data set, config or split
        raise DataError(f"{name}: {failure}; correct the name, the config after `:` or the split") from failure
    if isinstance(table, datasets.DatasetDict):
        if len(table) != 1:
            raise ConfigError(f"{name}: choose a split, one of {', '.join(map(str, table))}")
        table = next(iter(table.values()))
    for index, row in enumerate(table):
        yield f"{name}[{index}]", dict(row)


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


def _line(row: Any) -> bytes:
    """One row. A lone surrogate, which UTF-8 cannot hold, becomes its JSON escape and comes back as it was."""
    record = asdict(row) if is_dataclass(row) and not isinstance(row, type) else dict(row)
    return json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _mend_tail(file: BufferedRandom) -> None:
    """Make the file end in a newline: complete a last row that is whole, remove one that is torn."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 1))
    if file.read(1) in (b"", b"\n"):
        return
    file.seek(0)
    tail = file.read().rpartition(b"\n")[2]
    try:
        parse_row(file.name, tail)
    except DataError:
        file.truncate(size - len(tail))
    else:
        file.write(b"\n")
