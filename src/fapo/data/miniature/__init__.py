"""A small world in which every step can be checked exactly, and models small enough to train there in minutes."""
