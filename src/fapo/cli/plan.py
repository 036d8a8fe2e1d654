"""`fapo plan`: the cost of a run."""

from __future__ import annotations

from fapo.cli.app import app, print_json, table_console
from fapo.config.options import AsJson, ConfigFile, Options
from fapo.training.planner.assumptions import PlanAssumptions


@app.command("plan")
def plan(*, file: Options[ConfigFile], assumptions: Options[PlanAssumptions], as_json: AsJson = False) -> None:
    """Compute what a run needs: memory, tokens, FLOPs, GPU-hours and judge replicas. Nothing is started."""
    from fapo.training.planner.output import as_json as plan_as_json
    from fapo.training.planner.output import as_tables
    from fapo.training.planner.plan import make_plan

    settings = file.load()
    found = make_plan(settings, assumptions)
    if as_json:
        print_json(plan_as_json(settings, assumptions, found))
        return
    for part in as_tables(settings, assumptions, found):
        table_console().print(part, highlight=False, markup=False)
