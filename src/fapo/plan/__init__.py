"""GPU hours, tokens, memory and the size of the judge's pool that a config needs: `fapo plan`."""

from fapo.plan.make import Plan, make_plan
from fapo.plan.options import PlanOptions

__all__ = ["Plan", "PlanOptions", "make_plan"]
