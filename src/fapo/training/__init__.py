"""Parts that all trainers use: data sets, step metrics, run folders, data to train a judge on, and a planner."""
