"""What a run needs, by arithmetic: `make_plan` computes it from a config and a few assumptions."""

from fapo.training.planner.assumptions import PlanAssumptions
from fapo.training.planner.plan import Quantity, make_plan

__all__ = ["PlanAssumptions", "Quantity", "make_plan"]
