"""Data to train a GenRM on: solutions with a right answer, labelled where a teacher agrees with itself on the position.

`build(config)` makes it; the stages are functions of `asking`, the rules those of `consensus`.
"""

from fapo.training.critic_data.build import build
from fapo.training.critic_data.card import Card, summary
from fapo.training.critic_data.settings import CriticConfig

__all__ = ["Card", "CriticConfig", "build", "summary"]
