"""FAPO's reward for trainers other than TRL and verl."""
