"""Benchmarks of judges: FlawedPositiveBench and ProcessBench, behind `fapo bench`."""
