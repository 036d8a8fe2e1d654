"""The miniature: a small world in which an oracle checks every step, with models that train there in minutes."""
