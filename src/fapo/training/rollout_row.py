"""Row of rollouts.jsonl."""

from __future__ import annotations

from typing import Any

from fapo.data.trajectory import as_messages
from fapo.judge.verdicts import verdict_row
from fapo.types import GroundTruth, ScoredRollout

SCHEMA = 1
"""Version of the rows in rollouts.jsonl."""


def rollout_row(s: ScoredRollout, advantage: float | None, truth: GroundTruth | None) -> dict[str, Any]:
    """Return a rollout as a row of rollouts.jsonl, without the columns step and split, which the engine adds.

    Args:
        s: Scored rollout.
        advantage: Advantage of the rollout; None if it is unknown.
        truth: Truth about the rollout; None if it is unknown.

    Returns:
        Row by the names of its columns.
    """
    problem = s.rollout.problem
    known = truth._asdict() if truth else None
    if known and known["answer_correct"] is None:  # for a rollout of a policy the column `correct` says it
        del known["answer_correct"]
    return {
        "problem_id": problem.id,
        "problem": problem.text,
        "reference": problem.reference,
        "response": s.rollout.response,
        **({"trajectory": as_messages(s.rollout)} if s.rollout.earlier_turns else {}),
        "num_tokens": s.rollout.num_tokens,
        "correct": s.correct,
        **verdict_row(s.verdict),
        **({"reason": f"answer not compared: {s.check_error}"} if s.check_error else {}),
        "reward": s.reward.value,
        "parts": dict(s.reward.parts),
        "advantage": None if advantage is None else round(float(advantage), 6),
        "truth": known,
    }
