"""Studies of this project: python -m experiments.NAME."""
