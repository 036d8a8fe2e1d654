"""Rewards and advantages: pure functions with the paper's equations, and the scorers that apply them to rollouts."""

from fapo.rewards.advantages import group_advantages
from fapo.rewards.genrm import genrm_reward
from fapo.rewards.policy import fapo_reward, outcome_reward
from fapo.rewards.scorer import PolicyScorer
from fapo.rewards.theory import expected_advantages, shift_ratio, shrink_ratio
from fapo.rewards.verify import check_answers

__all__ = [
    "PolicyScorer",
    "check_answers",
    "expected_advantages",
    "fapo_reward",
    "genrm_reward",
    "group_advantages",
    "outcome_reward",
    "shift_ratio",
    "shrink_ratio",
]
