"""Files of predictions, one row for each solution: {id, error_step, status} or {id, scores}."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fapo.data.jsonl import PlacedRow, write_jsonl
from fapo.data.sources import read_rows
from fapo.errors import ConfigError, DataError
from fapo.judge.prm import first_below
from fapo.judge.verdicts import OUT_OF_RANGE, verdict_row
from fapo.types import LabelledSolution, Verdict

STATUSES = ("ok", "unparsable", "failed", "skipped")
"""Values of the column `status`, which is ok by default; a skipped row counts like a missing one."""

MISSING = Verdict("failed", reason="no prediction")
"""Verdict of a row without a prediction."""


@dataclass(frozen=True)
class Prediction:
    """One row of a file of predictions."""

    id: str
    """Id of the solution."""
    verdict: Verdict | None
    """Verdict on the solution; None for a skipped row."""
    from_scores: bool = False
    """Whether the verdict comes from step scores and the threshold."""
    judge: str = ""
    """Name of the judge; empty where the row does not say."""


def read_predictions(
    path: str | Path, num_steps: Mapping[str, int], *, threshold: float = 0.5, with_step: bool = False
) -> dict[str, Prediction]:
    """Read the predictions of a .jsonl, .json or .parquet file.

    A row holds `error_step` (index of the first wrong step, null or -1 for none), or `scores`, or `flawed` (true or
    false), or `flawed` and `error_step`. Beside one of them, null in the others is no value. `scores` has one number
    for each step, and the first one below the threshold marks the first wrong step. An index beyond the steps is
    unparsable, as it is from a judge.

    Args:
        path: File of predictions.
        num_steps: Number of steps of each solution, by id.
        threshold: Limit below which a score marks a wrong step.
        with_step: Whether a flagged row must name a step. A row that gives a `reason` may lack it.

    Returns:
        Predictions by id.

    Raises:
        ConfigError: The threshold is no number.
        DataError: With file and line, for ids that are unknown or repeated, values that are not numbers, and a wrong
            number of scores.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file; give one that `fapo bench --out` has written")
    if not math.isfinite(threshold):
        raise ConfigError(f"threshold is {threshold}, must be a number such as 0.5")
    found = {}
    for where, row in _with_unique_ids(read_rows(path)):
        parsed, judge = _parse(where, row, num_steps, threshold, with_step), row.get("judge")
        if parsed.verdict:
            parsed = replace(parsed, verdict=replace(parsed.verdict, **_further(where, row)))
        found[parsed.id] = replace(parsed, judge=judge if isinstance(judge, str) else "")
    if not found:
        raise DataError(f"{path}: no predictions in it; give at least one row")
    return found


def verdicts_of(rows: Sequence[LabelledSolution], predictions: Mapping[str, Prediction]) -> list[Verdict]:
    """Return one verdict for each row of a benchmark.

    Args:
        rows: Rows that are scored.
        predictions: Predictions by id.

    Returns:
        Verdicts in the order of the rows; MISSING for a row without a prediction.
    """
    found = (predictions.get(row.problem.id) for row in rows)
    return [prediction.verdict if prediction and prediction.verdict else MISSING for prediction in found]


def write_predictions(path: Path, rows: Sequence[LabelledSolution], verdicts: Sequence[Verdict], judge: str) -> None:
    """Write one row for each verdict, in the form that `read_predictions` reads.

    A verdict by step scores is written as its scores, to which any threshold can be applied.

    Args:
        path: JSONL file.
        rows: Rows that were judged.
        verdicts: Verdicts in the order of the rows.
        judge: Name of the judge, which is written into each row.
    """
    pairs = zip(rows, verdicts, strict=True)
    out = [
        {
            "id": row.problem.id,
            **verdict_row(verdict),
            "critique_seconds": verdict.seconds,
            "judge": judge,
        }
        for row, verdict in pairs
    ]
    for row in out:
        if "given_by" in row:
            row.pop("scores", None)  # the verdict of a cascade does not follow from a threshold alone
        if "scores" in row:
            del row["flawed"], row["error_step"]
    write_jsonl(path, out)


def _with_unique_ids(rows: Iterable[PlacedRow]) -> Iterator[PlacedRow]:
    """Yield rows with their ids as text; raise DataError for an id that is missing or repeated."""
    seen: dict[str, str] = {}
    for where, row in rows:
        id = row.get("id")
        if isinstance(id, bool) or not isinstance(id, str | int):
            raise DataError(f"{where}: id is {_short(id)}, must be the id of a row of the data")
        if (id := str(id)) in seen:
            raise DataError(f"{where}: id {_short(id)} has a prediction already, at {seen[id]}; keep one")
        seen[id] = where
        yield where, {**row, "id": id}


def _parse(
    where: str, row: dict[str, Any], num_steps: Mapping[str, int], threshold: float, with_step: bool
) -> Prediction:
    """Return one row as a prediction; raise DataError, with the place `where`, for a row that cannot be used."""
    id, critique = row["id"], row.get("critique")
    status: Any = "ok" if row.get("status") is None else row["status"]
    if id not in num_steps:
        raise DataError(f"{where}: id {_short(id)} is in no row of the data; give the file it belongs to, too")
    if status not in STATUSES:
        raise DataError(f"{where}: status is {_short(status)}, must be one of {', '.join(STATUSES)}")
    critique = critique if isinstance(critique, str) else ""
    if status == "skipped":
        return Prediction(id, None)
    if status != "ok":
        return Prediction(id, Verdict(status, critique=critique, reason=str(row.get("reason") or "as recorded")))
    # tables write null where a row has no value, but a step that is null is a verdict
    has_scores, flawed, step = row.get("scores") is not None, row.get("flawed"), row.get("error_step")
    if has_scores and step is not None:
        raise DataError(f"{where}: has scores and error_step, must have one of them")
    if has_scores:
        scores = tuple(_scores(where, row["scores"], num_steps[id]))
        step = first_below(scores, threshold)
        return Prediction(id, Verdict("ok", step is not None, step, critique, scores=scores), from_scores=True)
    if "error_step" not in row and flawed is None:
        raise DataError(f"{where}: must have error_step or scores, has {_short(list(row))}")
    if flawed is not None and not isinstance(flawed, bool):
        raise DataError(f"{where}: flawed is {_short(flawed)}, must be true or false")
    if step is not None and (isinstance(step, bool) or not isinstance(step, int)):
        raise DataError(f"{where}: error_step is {_short(step)}, must be an integer, or null or -1 for no error")
    if step is not None and not -1 <= step < num_steps[id]:
        return Prediction(id, Verdict("unparsable", critique=critique, reason=OUT_OF_RANGE))
    if flawed is None:
        flawed = step not in (None, -1)
    elif step is not None and flawed != (step >= 0):
        raise DataError(f"{where}: flawed is {str(flawed).lower()} but error_step is {step}; they must agree")
    step, why = None if step == -1 else step, str(row.get("reason") or "")
    if with_step and flawed and step is None and not why:
        raise DataError(f"{where}: says flawed but not where (error_step), which this benchmark needs")
    return Prediction(id, Verdict("ok", flawed, step, critique, why))


def _further(where: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the other columns of a row about its verdict; raise DataError for a rate that is none."""
    found: dict[str, Any] = {
        "num_tokens": int(_cost(row, "critique_tokens")),
        "all_tokens": int(_cost(row, "all_tokens")),
        "seconds": _cost(row, "critique_seconds"),
    }
    for name in ("flag_rate", "flag_probability"):
        if (rate := row.get(name)) is not None:
            if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
                raise DataError(f"{where}: {name} is {_short(rate)}, must be a number from 0 to 1")
            found[name] = float(rate)
    if row.get("given_by") in ("cheap", "strong"):
        found["given_by"] = row["given_by"]
    return found


def _scores(where: str, scores: Any, num_steps: int) -> list[int | float]:
    """Return the scores of a row; raise DataError unless they are one finite number for each step."""
    if not isinstance(scores, list):
        raise DataError(f"{where}: scores is {_short(scores)}, must be a list of numbers")
    for index, score in enumerate(scores):
        number = isinstance(score, int | float) and not isinstance(score, bool)
        if not number or (isinstance(score, float) and not math.isfinite(score)):
            raise DataError(f"{where}: scores[{index}] is {_short(score)}, must be a finite number")
    if len(scores) != num_steps:
        raise DataError(f"{where}: has {len(scores)} scores, must have one for each of the {num_steps} steps")
    return scores


def _cost(row: Mapping[str, Any], column: str) -> float:
    """Return the tokens or seconds of a critique; 0, which is unknown, where the column has no number above 0."""
    value = row.get(column)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return value if 0 < value < math.inf else 0


def _short(value: Any) -> str:
    """Return a value as text of at most 43 characters."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python writes out
        text = "too large a number"
    return text if len(text) <= 40 else f"{text[:40]}..."
