"""Data to train a GenRM on: solutions with a right answer, labelled where a teacher agrees with itself on the position.

`build(config)` makes it; the stages are functions of `asking`, the rules those of `consensus`.
"""

from fapo.critic.build import build
from fapo.critic.card import Card, summary
from fapo.critic.settings import CriticConfig

__all__ = ["Card", "CriticConfig", "build", "summary"]
