"""A plan as tables and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from rich.box import SIMPLE
from rich.console import RenderableType
from rich.table import Table

from fapo.plan.make import Plan
from fapo.plan.step import with_replicas


def as_json(plan: Plan) -> dict[str, Any]:
    """For `--json`: every number of the tables."""
    work = plan.work
    return {
        "name": plan.name,
        "steps": plan.steps,
        "goal": plan.goal,
        "replicas": plan.replicas if plan.judge else 0,
        "reached": plan.reached,
        "pools": [{**asdict(step), "total": step.total, "ratio": step.ratio} for step in plan.pools],
        "tokens_a_step": {"policy": work.policy_tokens, "judge": work.judge_tokens, "judge_reads": work.read_tokens},
        "judged_share": sum(map(bool, work.critiques)) / len(work.critiques),
        "hours": plan.hours,
        "gpu_hours": {"policy": plan.policy_gpu_hours, "judge": plan.judge_gpu_hours},
        "speeds": asdict(plan.speeds),
        "memory_gib": [{**asdict(role), "total": role.total} for role in plan.memory],
    }


def as_tables(plan: Plan) -> Iterator[RenderableType]:
    """For people: a step by size of the pool, the whole run, memory; and what to do where the goal is out of reach."""
    pools = _table(f"{plan.name}: seconds of a step", "judges", "rollout", "exposed", "update", "step", "ratio")
    for step in plan.pools:
        name = (
            f"{'> ' if plan.judge and step.replicas == plan.replicas else ''}{step.replicas if plan.judge else 'none'}"
        )
        seconds = (step.rollout, step.exposed, step.update, step.total)
        pools.add_row(name, *(f"{value:.4g}" for value in seconds), f"{step.ratio:.3f}")
    yield pools
    yield verdict(plan)
    run = _table(f"{plan.steps} steps", "", "GPUs", "tokens written", "GPU hours")
    total = plan.steps * plan.work.policy_tokens
    run.add_row("policy", str(plan.gpus), f"{total:.3g}", f"{plan.policy_gpu_hours:.4g}")
    if plan.judge:
        gpus = plan.replicas * plan.judge_gpus
        run.add_row("judge", str(gpus), f"{plan.steps * plan.work.judge_tokens:.3g}", f"{plan.judge_gpu_hours:.4g}")
    yield run
    yield f"{plan.hours:.4g} hours, without validation, checkpoints and the transfer of weights"
    memory = _table("GiB of a GPU", "", *(role.role for role in plan.memory))
    memory.add_row("GPUs", *(str(role.gpus) for role in plan.memory))
    for part in ("weights", "gradients", "optimizer", "activations", "cache", "waiting", "total"):
        memory.add_row(part, *(f"{getattr(role, part):.1f}" for role in plan.memory))
    memory.add_row("sequences at the limit", *(str(role.sequences) if role.cache else "-" for role in plan.memory))
    yield memory


def verdict(plan: Plan) -> str:
    """What is to be said of the size of the pool."""
    if not plan.judge:
        return "nothing is judged"
    if plan.reached:
        return f"> the fewest judges that lengthen a step by no more than {plan.goal:.0%}"
    last = plan.pools[-1]
    unlimited = replace(plan.speeds, judge=replace(plan.speeds.judge, limit=None))
    if with_replicas(plan.work, unlimited, last.replicas).total < 0.99 * last.total:
        remedy = f"judge.concurrency = {plan.speeds.judge.limit} holds them back; raise it"
    elif with_replicas(plan.work, plan.speeds, 2 * last.replicas).total < 0.99 * last.total:
        remedy = "critiques have to wait; allow more judges (--replicas) or shorten them"
    else:
        remedy = "the last critiques take so long, even alone; shorten them"
    found = f"{last.replicas} judges still lengthen a step by {last.ratio - 1:.1%}, not {plan.goal:.0%}: {remedy}"
    return f"{found}\n> the fewest judges that come within {plan.goal:.0%} of that"


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE, padding=(0, 1, 0, 0))
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="left" if i == 0 else "right", no_wrap=True)
    return table
