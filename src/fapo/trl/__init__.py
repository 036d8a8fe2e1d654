"""Training on one machine with TRL: reward functions for any GRPOTrainer, and the trainers behind `fapo train`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fapo.trl.accuracy import accuracy_reward
from fapo.trl.reward import FlawedAwareReward, flawed_aware_reward

if TYPE_CHECKING:
    from fapo.trl.first_error import first_error_credit
    from fapo.trl.judge_while_generating import judge_ahead

__all__ = ["FlawedAwareReward", "accuracy_reward", "first_error_credit", "flawed_aware_reward", "judge_ahead"]
_LAZY = {"first_error_credit": "fapo.trl.first_error", "judge_ahead": "fapo.trl.judge_while_generating"}


def __getattr__(name: str) -> Any:
    """Import a name at its first use, because its module imports torch."""
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
