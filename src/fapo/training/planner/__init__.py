"""What a run needs, by arithmetic: `plan.make_plan` computes it from a config and a few assumptions."""
