"""Read a run folder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fapo.data.jsonl import finite_number, read_jsonl
from fapo.errors import DataError

WINDOW = 5
"""Number of measurements in a running mean."""


@dataclass(frozen=True)
class Series:
    """The values of one metric over training."""

    steps: tuple[float, ...]
    """Training steps, ascending, each once."""
    values: tuple[float, ...]
    """Finite values, one for each step."""

    def __bool__(self) -> bool:
        return bool(self.steps)

    def smoothed(self) -> Series:
        """Return the mean over the up to WINDOW measurements around each one; at the ends over fewer."""
        half = WINDOW // 2
        means = (float(np.mean(self.values[max(0, i - half) : i + half + 1])) for i in range(len(self.values)))
        return Series(self.steps, tuple(means))

    def at(self, step: float) -> float | None:
        """Return the value at a step, interpolated, and beyond the ends the value there; None for an empty series."""
        return float(np.interp(step, self.steps, self.values)) if self else None


NOTHING = Series((), ())
"""Series of a metric that was not measured."""


@dataclass(frozen=True)
class Run:
    """The contents of a run folder, without its rollouts."""

    name: str
    """Name of the run."""
    path: Path
    """Folder of the run."""
    config: Mapping[str, Any]
    """Contents of config.json; settings may be missing."""
    rows: tuple[Mapping[str, Any], ...]
    """Rows of metrics.jsonl; any value may be missing."""

    @property
    def kind(self) -> str:
        """Kind of reward, or "sft" for a GenRM that imitates; "" where the config does not say."""
        return str(self.table("reward").get("kind") or "")

    @property
    def penalty(self) -> float | None:
        """Lambda of a run with kind fapo, otherwise None."""
        penalty = finite_number(self.table("reward").get("penalty", 1.0))
        return penalty if self.kind == "fapo" else None

    @property
    def genrm(self) -> bool:
        """Whether a judge was trained, not a policy."""
        return self.kind.startswith("genrm") or self.config.get("task") == "genrm"

    @property
    def sets(self) -> tuple[str, ...]:
        """Names of the validation sets that were measured."""
        mark = "/f1" if self.genrm else "/accuracy"
        keys = (key for row in self.rows if row.get("kind") == "validation" for key in row)
        return tuple(dict.fromkeys(key.removesuffix(mark) for key in keys if key.endswith(mark)))

    @property
    def last_step(self) -> int:
        """Last step with a measurement; 0 before the first."""
        return int(max((finite_number(row.get("step")) or 0 for row in self.rows), default=0))

    def series(self, key: str, kind: str = "validation") -> Series:
        """Return all finite values of a metric; the later one of a step that was measured twice."""
        found = {}
        for row in self.rows:
            step, value = finite_number(row.get("step")), finite_number(row.get(key))
            if row.get("kind") == kind and step is not None and value is not None:
                found[step] = value
        steps = sorted(found)
        return Series(tuple(steps), tuple(found[step] for step in steps))

    @property
    def rollout_files(self) -> tuple[Path, ...]:
        """Files of rollouts: rollouts.jsonl, and those of further processes."""
        return tuple(sorted(self.path.glob("rollouts*.jsonl")))

    def rollouts(self) -> Iterator[Mapping[str, Any]]:
        """Yield all rollouts in the order written; skip lines that are no rows."""
        yield from _rows(self.rollout_files)

    def drawn_for_a_person(self) -> Counter[tuple[int, str, str]]:
        """Return step, id of the problem and response of the rollouts that the audit has drawn for a person."""
        audit = self.table("judge").get("audit")
        judge = audit.get("judge") if isinstance(audit, Mapping) else None
        if not isinstance(judge, Mapping) or judge.get("kind") != "person":
            return Counter()
        rows = _rows(sorted(self.path.glob("audit*.jsonl")))
        return Counter((row["step"], str(row["problem_id"]), row["response"]) for row in rows)

    @property
    def prompts(self) -> Mapping[str, Any]:
        """Contents of prompts.json; empty where the run has none."""
        return _object(self.path / "prompts.json")

    @property
    def environment(self) -> Mapping[str, Any]:
        """Contents of env.json, versions and hardware; empty where the run has none."""
        return _object(self.path / "env.json")

    def table(self, name: str) -> Mapping[str, Any]:
        """Return a table of the config; an empty one where it is missing."""
        table = self.config.get(name)
        return table if isinstance(table, Mapping) else {}


def _rows(paths: Iterable[Path]) -> Iterator[Mapping[str, Any]]:
    """Yield the rows of files, in the order written; skip lines that are no rows."""
    for path in paths:
        with path.open("rb") as file:
            for line in file:
                try:
                    row = json.loads(line.decode("utf-8", "replace"))
                except ValueError:  # blank, or torn while being written
                    continue
                if isinstance(row, dict):
                    yield row


def _object(path: Path) -> Mapping[str, Any]:
    """Return the object in a JSON file; an empty one where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def is_finished(folder: Path) -> bool:
    """Return whether a run folder holds the trained model."""
    return (folder / "model").is_dir()


def read_run(path: str | Path) -> Run:
    """Read a run folder; a last line that was cut off while it was written is left out.

    Raise DataError if the folder holds no run.
    """
    path = Path(path)
    file = path / "config.json"
    remedy = "give a folder that `fapo train` has written, such as runs/NAME"
    try:
        config = json.loads(file.read_text(encoding="utf-8", errors="replace"))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path}: no run, config.json is missing; {remedy}") from None
    except ValueError as error:
        raise DataError(f"{path}: config.json is not JSON ({error}); {remedy}") from None
    if not isinstance(config, dict):
        raise DataError(f"{path}: config.json holds no settings; {remedy}")
    metrics = path / "metrics.jsonl"
    rows = read_jsonl(metrics, ignore_torn_tail=True) if metrics.is_file() else ()
    return Run(str(config.get("name") or path.resolve().name), path, config, tuple(rows))
