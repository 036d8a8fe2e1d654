"""Measurements: audits of solutions, benchmarks of judges and of policies, and the statistics behind them."""
