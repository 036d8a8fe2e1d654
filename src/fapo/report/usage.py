"""Tokens and cost of the judge in a training run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fapo.data.jsonl import finite_number
from fapo.training.run_reader import Run

COLUMNS = {
    "requests": "requests",
    "prompt_tokens": "prompt tokens",
    "cached_tokens": "cached by the server",
    "completion_tokens": "completion tokens",
    "from_cache": "from the response cache",
}
"""Name of a sum in metrics.jsonl, behind "judge/" or "audit/" -> heading."""
GROUPS = {"judge": "", "audit": ", second judge"}
"""Group of the names in metrics.jsonl -> end of the name of its row."""


@dataclass(frozen=True)
class JudgeUsage:
    """Sums over the training steps and validations of a run."""

    name: str
    """Name of the run, with "second judge" for that of an audit."""
    sums: tuple[int, ...]
    """Sums in the order of COLUMNS."""
    cost: float | None
    """Cost in the currency of `judge.prices`; None without prices."""


def judge_usages(runs: Sequence[Run]) -> list[JudgeUsage]:
    """Return one record for each run that has recorded tokens of a judge."""
    found = []
    for run in runs:
        for group, end in GROUPS.items():
            sums = tuple(int(_sum(run, f"{group}/{name}") or 0) for name in COLUMNS)
            if any(sums):
                found.append(JudgeUsage(f"{run.name}{end}", sums, _sum(run, f"{group}/cost")))
    return found


def _sum(run: Run, name: str) -> float | None:
    """Return the sum of a metric over all rows, also of validation sets; None if no row has it."""
    values = [
        value
        for row in run.rows
        for key in row
        if key == name or key.endswith(f"/{name}")  # of a validation set: NAME/judge/requests
        if (value := finite_number(row[key])) is not None
    ]
    return sum(values) if values else None
