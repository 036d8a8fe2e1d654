"""Benchmarks of fapo: python -m benchmarks.NAME."""
