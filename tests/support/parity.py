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
