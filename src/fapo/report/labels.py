"""The labels under which runs are shown: the kind of reward, and what else tells them apart."""

from __future__ import annotations

import json
from collections.abc import Sequence

from fapo.training.run_reader import Run

KINDS = ("outcome", "fapo", "step_ratio", "genrm_step", "genrm_outcome")
"""Reward kinds, in the order in which they are shown."""
NEGATIVE = "FP -> negative"
_NAMES = {
    "outcome": "GRPO baseline",
    "step_ratio": "step ratio",
    "genrm_step": "GenRM, step-wise",
    "genrm_outcome": "GenRM, outcome only",
}


def grouped(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return label -> runs that differ in their seed at most, in the order of KINDS.

    The label is the kind of reward. The judge is added where runs of one kind had different judges, the name of the run
    where they differ in other settings.
    """
    order = {kind: i for i, kind in enumerate(KINDS)}
    ordered = sorted(runs, key=lambda run: (order.get(run.kind, len(KINDS)), run.penalty or 0))
    groups: dict[str, list[Run]] = {}
    for run in ordered:
        alike = [other for other in runs if _kind_label(other) == _kind_label(run)]
        label = _kind_label(run)
        if run.kind not in ("outcome", "") and not run.genrm and len({_judge(other) for other in alike}) > 1:
            label += f", judge: {_judge(run)}"
            alike = [other for other in alike if _judge(other) == _judge(run)]
        if len({_settings(other) for other in alike}) > 1:
            label += f" ({run.name})"
        groups.setdefault(label, []).append(run)
    return groups


def _kind_label(run: Run) -> str:
    if run.kind == "fapo":
        by_penalty = {1.0: "FAPO", 2.0: NEGATIVE}
        return by_penalty.get(run.penalty or 0.0, f"FAPO, λ = {run.penalty or 0.0:.3g}")
    return _NAMES.get(run.kind, run.kind or run.name)


def _judge(run: Run) -> str:
    judge = run.table("judge")
    kind, model = judge.get("kind"), str(judge.get("model") or "")
    if kind == "local":
        return "base GenRM" if model.startswith("miniature:") else "trained GenRM"
    return {"oracle": "oracle", "served": model}.get(str(kind), "none")


def _settings(run: Run) -> str:
    """Return the settings that runs of one curve have in common: those that bear on learning, except the seed."""
    tables = ("model", "data", "rollout", "reward", "optim")
    return json.dumps([run.config.get(name) for name in tables], sort_keys=True, default=str)
