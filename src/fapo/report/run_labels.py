"""Labels of runs in tables and plots: the kind of reward, and what else distinguishes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from fapo.training.run_reader import Run

KINDS = ("outcome", "fapo", "decoupled", "filter", "first_error", "step_ratio", "genrm_step", "genrm_outcome")
"""Reward kinds, in the order in which they are shown."""
NEGATIVE = "FP -> negative"
"""Label of runs with penalty 2, which makes a flawed positive a plain negative."""
_NAMES = {
    "outcome": "GRPO baseline",
    "decoupled": "decoupled",
    "filter": "consistency filter",
    "first_error": "first error",
    "step_ratio": "step ratio",
    "genrm_step": "GenRM, step-wise",
    "genrm_outcome": "GenRM, outcome only",
}


def group_runs(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return label -> runs that differ at most in their seed, in the order of KINDS.

    A label names the kind of reward. It also names the judge if runs of this kind had different judges, and the run if
    they differ in other settings.
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
    """Return the kind of reward as it is shown, for kind fapo with its penalty."""
    if run.kind == "fapo":
        by_penalty = {1.0: "FAPO", 2.0: NEGATIVE}
        return by_penalty.get(run.penalty or 0.0, f"FAPO, λ = {run.penalty or 0.0:.3g}")
    return _NAMES.get(run.kind, run.kind or run.name)


def _judge(run: Run) -> str:
    """Return a short description of the judge of a run."""
    judge = run.table("judge")
    kind, model = judge.get("kind"), str(judge.get("model") or "")
    if kind == "local":  # each seed may have trained a judge of its own, in the folder of its run
        return "trained GenRM" if Path(model).name == "model" else model
    if kind == "prm":
        return f"PRM {model}"
    if kind == "cascade":
        return "cascade"
    return {"oracle": "oracle", "served": model}.get(str(kind), "none")


def _settings(run: Run) -> str:
    """Return the settings that runs of one label have in common: those that affect learning, without the seed."""
    tables = ("model", "data", "rollout", "reward", "optim")
    return json.dumps([run.config.get(name) for name in tables], sort_keys=True, default=str)
