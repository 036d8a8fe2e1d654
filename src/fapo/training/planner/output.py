"""A plan as tables and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.table import Table

from fapo.config.schema import Config
from fapo.training.planner.assumptions import PlanAssumptions
from fapo.training.planner.plan import JUDGE_MEMORY_RATE, MAX_SEQUENCES, ROLLOUT_MEMORY_RATE, Quantity

FIXED = (
    ("rollout server memory", f"{ROLLOUT_MEMORY_RATE:.0%} of a GPU", "fixed"),
    ("judge replica memory", f"{JUDGE_MEMORY_RATE:.0%} of a GPU", "fixed"),
    ("sequences of a server", f"{MAX_SEQUENCES} or fewer", "fixed"),
)
NOTES = (
    "A bound assumes full memory bandwidth and one response at the length limit. A real run is slower.",
    "The number of replicas assumes that policy and judge reach the same fraction of their bounds; it knows no queue.",
    "Not included: activations, validation, checkpoints, transfer of weights, waiting for the last verdicts.",
)


def as_json(config: Config, assumed: PlanAssumptions, plan: Sequence[Quantity]) -> dict[str, Any]:
    """Return the name of the run, every assumption by its field and every result by its name."""
    lengths = {"response": assumed.mean_response(config), "critique": assumed.mean_critique(config)}
    results = {quantity.name: quantity.value for quantity in plan}
    return {"name": config.name, "assumptions": asdict(assumed) | lengths, "results": results}


def as_tables(config: Config, assumed: PlanAssumptions, plan: Sequence[Quantity]) -> Iterator[RenderableType]:
    """Yield the assumptions with their options, the results with their formulas, and what the plan leaves out."""
    values = as_json(config, assumed, plan)["assumptions"].items()
    options = [(name.replace("_", " "), str(value), f"--{name.replace('_', '-')}") for name, value in values if value]
    yield _table("Assumptions", [*options, *FIXED])
    yield _table(f"{config.name}, {config.optim.steps} steps", [(q.name, _with_unit(q), q.origin) for q in plan])
    yield from NOTES


def _with_unit(quantity: Quantity) -> str:
    value = quantity.value
    shown = f"{value:,}" if isinstance(value, int) else f"{value:,.1f}" if 0.1 <= value < 1e7 else f"{value:.3g}"
    return f"{shown} {quantity.unit}".rstrip()


def _table(title: str, rows: Sequence[tuple[str, str, str]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE, show_header=False)
    for row in rows:
        table.add_row(*row)
    return table
