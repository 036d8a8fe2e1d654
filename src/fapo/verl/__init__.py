"""Training on a Ray cluster with verl: reward function, advantages, and records of a run.

verl is used as it is. It imports these modules by the names that `fapo.verl.overrides` gives it.
"""
