"""Training on one machine with TRL: reward functions for any GRPOTrainer, and the trainers behind `fapo train`."""

from typing import TYPE_CHECKING, Any

from fapo.trl.accuracy import accuracy_reward
from fapo.trl.reward import FlawedAwareReward, flawed_aware_reward

if TYPE_CHECKING:
    from fapo.trl.first_error import first_error_credit
    from fapo.trl.judge_while_generating import judge_ahead

__all__ = ["FlawedAwareReward", "accuracy_reward", "first_error_credit", "flawed_aware_reward", "judge_ahead"]


def __getattr__(name: str) -> Any:
    # these are imported at their first use, because they import torch
    if name == "judge_ahead":
        from fapo.trl.judge_while_generating import judge_ahead

        return judge_ahead
    if name == "first_error_credit":
        from fapo.trl.first_error import first_error_credit

        return first_error_credit
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
