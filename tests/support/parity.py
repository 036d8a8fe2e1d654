"""One table of rollouts, verdicts and rewards, with which TRL and verl are compared.

The judge is a server (tests/support/chat_server.py) that reads its answer from the solution.
"""

from __future__ import annotations

from typing import Any

from tests.support.chat_server import Reply

REFERENCE = "7"
PENALTY = 1.0
SAYS = {"sound": "\\boxed{-1}", "flawed": "\\boxed{0}", "nonsense": "I cannot tell.", "beyond": "\\boxed{99}"}
"""Critique of the judge for each kind of solution with a right answer; other kinds have a wrong answer."""
EARNS = {"sound": 1.0, "flawed": 0.0, "nonsense": None, "beyond": None, "wrong": -1.0}
"""Reward of each kind of solution at lambda = 1; None is unscored."""
GROUPS = [
    ["sound", "flawed", "wrong", "wrong"],
    ["sound", "nonsense", "wrong", "flawed"],
    ["sound", "sound", "sound", "sound"],
    ["flawed", "flawed", "beyond", "wrong"],
    ["nonsense", "sound", "beyond", "nonsense"],
    ["wrong", "wrong", "wrong", "wrong"],
]
"""Kinds of the rollouts [P, G] of each problem."""
REWARDS = [[EARNS[kind] for kind in group] for group in GROUPS]


def solution(kind: str) -> str:
    """Return the solution of a policy of one kind."""
    return f"The {kind} way.\n\nSo it is \\boxed{{{REFERENCE if kind in SAYS else '1'}}}."


def judge(body: dict[str, Any], _: int) -> Reply:
    """Return the critique of the judge for the solution in its prompt."""
    asked = body["messages"][-1]["content"]
    return Reply(next(says for kind, says in SAYS.items() if f"The {kind} way." in asked))


CLIPPED = [
    (ratio, advantage) for ratio in (0.01, 0.7, 1.0, 1.25, 1.4, 5.0, 20.0, 1e6) for advantage in (-1.5, 0.0, 0.5)
]
"""Probability ratio and advantage of the tokens on which both engines' losses are compared."""


def clipped_loss(ratio: float, advantage: float, low: float, high: float, dual: float | None) -> float:
    """Return the clipped loss of one token; `dual` limits the ratio where the advantage is negative."""
    loss = -min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)
    return min(loss, -dual * advantage) if dual and advantage < 0 else loss


WARMUP = {"optim.warmup_steps": 2, "optim.updates_per_batch": 2, "optim.learning_rate": 1e-3}
"""Settings of a warm-up, and the learning rates of the first updates that follow from them."""
RATES = [0.0, 0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3]
