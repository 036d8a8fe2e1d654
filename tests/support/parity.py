"""Rollouts, what a judge says of them, and what they earn: one table for rewards.py, TRL and verl.

A judge that is a server (tests/support/chat_server.py) reads off a solution what it is to answer.
"""

from __future__ import annotations

from typing import Any

from tests.support.chat_server import Reply

REFERENCE = "7"
PENALTY = 1.0
SAYS = {"sound": "\\boxed{-1}", "flawed": "\\boxed{0}", "nonsense": "I cannot tell.", "beyond": "\\boxed{99}"}
"""Kind of a right solution -> the judge's critique; other solutions are wrong."""
EARNS = {"sound": 1.0, "flawed": 0.0, "nonsense": None, "beyond": None, "wrong": -1.0}
"""Kind of a solution -> its reward at lambda = 1; None: unscored."""
GROUPS = [
    ["sound", "flawed", "wrong", "wrong"],
    ["sound", "nonsense", "wrong", "flawed"],
    ["sound", "sound", "sound", "sound"],
    ["flawed", "flawed", "beyond", "wrong"],
    ["nonsense", "sound", "beyond", "nonsense"],
    ["wrong", "wrong", "wrong", "wrong"],
]
"""The rollouts of each question, by kind."""
REWARDS = [[EARNS[kind] for kind in group] for group in GROUPS]


def solution(kind: str) -> str:
    """What a policy writes."""
    return f"The {kind} way.\n\nSo it is \\boxed{{{REFERENCE if kind in SAYS else '1'}}}."


def judge(body: dict[str, Any], _: int) -> Reply:
    """What the judge answers."""
    asked = body["messages"][-1]["content"]
    return Reply(next(says for kind, says in SAYS.items() if f"The {kind} way." in asked))
