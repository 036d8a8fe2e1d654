"""Measurements: audits of solutions, benchmarks of judges, evaluations of policies, and their statistics."""
