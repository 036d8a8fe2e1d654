"""Audit of solutions: the rate of flawed positives among the correct ones."""
