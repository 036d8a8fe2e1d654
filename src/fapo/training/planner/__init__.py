"""The needs of a run by arithmetic: `plan.make_plan` computes them from a config and a few assumptions."""
