"""FlawedPositiveBench and ProcessBench: their rows, answers of a judge or on file, scores with intervals, a table."""
