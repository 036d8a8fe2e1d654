"""`fapo plan`: the cost of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from rich.console import Console
from tyro.conf import OmitArgPrefixes, Positional, arg

from fapo.cli.app import Overrides, app
from fapo.training.planner import PlanAssumptions

_PLAN = PlanAssumptions()


@app.command
def plan(
    config: Positional[Path],
    overrides: Overrides = (),
    /,
    *,
    assumed: OmitArgPrefixes[PlanAssumptions] = _PLAN,
    as_json: Annotated[bool, arg(name="json")] = False,
) -> None:
    """Compute what a run needs: memory, tokens, FLOPs, GPU-hours and judge replicas; nothing is started.

    Args:
        config: TOML file.
        overrides: Settings that replace those of the file.
        assumed: Quantities that the config does not contain.
        as_json: Print JSON instead of tables.
    """
    from fapo.config.reader import load
    from fapo.training.planner import make_plan
    from fapo.training.planner.output import as_json as plan_as_json
    from fapo.training.planner.output import as_tables

    settings = load(config, overrides)
    found = make_plan(settings, assumed)
    if as_json:
        print(json.dumps(plan_as_json(settings, assumed, found), indent=2, allow_nan=False))
        return
    for part in as_tables(settings, assumed, found):
        Console().print(part, highlight=False, markup=False)
