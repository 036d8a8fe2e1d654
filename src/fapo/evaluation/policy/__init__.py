"""Evaluation of a policy: accuracy, and the rate of flawed solutions among the correct ones, behind `fapo eval`."""
