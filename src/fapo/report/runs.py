"""A run folder, read back: its config, its measurements as series over steps, the label it goes by among others."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fapo.data import finite_number, read_jsonl

WINDOW = 5
"""Measurements in a running mean."""
KINDS = ("outcome", "fapo", "step_ratio", "genrm_step", "genrm_outcome")
"""Reward kinds, in the order in which they are shown."""
NEGATIVE = "FP -> negative"
_NAMES = {
    "outcome": "GRPO baseline",
    "step_ratio": "step ratio",
    "genrm_step": "GenRM, step-wise",
    "genrm_outcome": "GenRM, outcome only",
}


@dataclass(frozen=True)
class Series:
    """One metric over training."""

    steps: tuple[float, ...]
    """Ascending, each once."""
    values: tuple[float, ...]
    """One finite value for each step."""

    def __bool__(self) -> bool:
        return bool(self.steps)

    def smoothed(self) -> Series:
        """Mean over the up to WINDOW measurements around each one; at the ends over those there are."""
        half = WINDOW // 2
        means = (float(np.mean(self.values[max(0, i - half) : i + half + 1])) for i in range(len(self.values)))
        return Series(self.steps, tuple(means))

    def at(self, step: float) -> float | None:
        """Value at a step by linear interpolation, beyond the ends the value there; None for an empty series."""
        return float(np.interp(step, self.steps, self.values)) if self else None


NOTHING = Series((), ())
"""A metric that was not measured."""


@dataclass(frozen=True)
class Run:
    """What a run folder holds, without its rollouts."""

    name: str
    """Name of the run."""
    path: Path
    """The folder."""
    config: Mapping[str, Any]
    """config.json as it stands there; settings may be missing."""
    rows: tuple[Mapping[str, Any], ...]
    """The rows of metrics.jsonl; any value may be missing."""

    @property
    def kind(self) -> str:
        """Kind of reward; "" where the config does not say."""
        return str(self._table("reward").get("kind") or "")

    @property
    def penalty(self) -> float | None:
        """lambda of a run with kind fapo, otherwise None."""
        penalty = finite_number(self._table("reward").get("penalty", 1.0))
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

    def series(self, key: str, kind: str = "validation") -> Series:
        """All finite values of a metric; of a step measured twice the later one."""
        found = {}
        for row in self.rows:
            step, value = finite_number(row.get("step")), finite_number(row.get(key))
            if row.get("kind") == kind and step is not None and value is not None:
                found[step] = value
        steps = sorted(found)
        return Series(tuple(steps), tuple(found[step] for step in steps))

    @property
    def rollout_files(self) -> tuple[Path, ...]:
        """rollouts.jsonl, and those of further processes."""
        return tuple(sorted(self.path.glob("rollouts*.jsonl")))

    def rollouts(self) -> Iterator[Mapping[str, Any]]:
        """All rollouts, in the order written; lines that are no rows are left out."""
        for path in self.rollout_files:
            with path.open("rb") as file:
                for line in file:
                    try:
                        row = json.loads(line.decode("utf-8", "replace"))
                    except ValueError:  # blank, or torn while being written
                        continue
                    if isinstance(row, dict):
                        yield row

    def _table(self, name: str) -> Mapping[str, Any]:
        table = self.config.get(name)
        return table if isinstance(table, Mapping) else {}

    def _judge(self) -> str:
        judge = self._table("judge")
        kind, model = judge.get("kind"), str(judge.get("model") or "")
        if kind == "local":
            return "base GenRM" if model.startswith("miniature:") else "trained GenRM"
        return {"oracle": "oracle", "served": model}.get(str(kind), "none")

    def _settings(self) -> str:
        """What runs of one curve have in common: everything that bears on learning, except the seed."""
        tables = ("model", "data", "rollout", "reward", "optim")
        return json.dumps([self.config.get(name) for name in tables], sort_keys=True, default=str)


def read_run(path: str | Path) -> Run:
    """Read a run folder; a last line cut off while being written is left out. Raises ValueError if there is no run."""
    path = Path(path)
    remedy = "give a folder that `fapo train` has written, such as runs/NAME"
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8", errors="replace"))
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(f"{path}: no run, config.json is missing; {remedy}") from None
    except ValueError as error:
        raise ValueError(f"{path}: config.json is not JSON ({error}); {remedy}") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path}: config.json holds no settings; {remedy}")
    metrics = path / "metrics.jsonl"
    rows = tuple(read_jsonl(metrics, ignore_torn_tail=True)) if metrics.is_file() else ()
    return Run(str(config.get("name") or path.resolve().name), path, config, rows)


def grouped(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Label -> runs, which differ in their seed at most; in the order of KINDS.

    The label is the kind of reward; with the judge where runs of one kind had different ones, with the name of the run
    where they differ in other settings.
    """
    order = {kind: i for i, kind in enumerate(KINDS)}
    ordered = sorted(runs, key=lambda run: (order.get(run.kind, len(KINDS)), run.penalty or 0))
    groups: dict[str, list[Run]] = {}
    for run in ordered:
        alike = [other for other in runs if _kind_label(other) == _kind_label(run)]
        label = _kind_label(run)
        if run.kind not in ("outcome", "") and not run.genrm and len({other._judge() for other in alike}) > 1:
            label += f", judge: {run._judge()}"
            alike = [other for other in alike if other._judge() == run._judge()]
        if len({other._settings() for other in alike}) > 1:
            label += f" ({run.name})"
        groups.setdefault(label, []).append(run)
    return groups


def _kind_label(run: Run) -> str:
    if run.kind == "fapo":
        by_penalty = {1.0: "FAPO", 2.0: NEGATIVE}
        return by_penalty.get(run.penalty or 0.0, f"FAPO, λ = {run.penalty or 0.0:.3g}")
    return _NAMES.get(run.kind, run.kind or run.name)
