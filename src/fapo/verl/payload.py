"""Scored rollouts as text, on their way from verl's reward workers to the trainer: verl carries numbers and strings."""

from __future__ import annotations

import json
import traceback
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from fapo import errors
from fapo.data.trajectory import reaches_limit
from fapo.inference.usage import Usage
from fapo.judge.canaries import CanaryResult
from fapo.types import Given, GroundTruth, Problem, Reward, Rollout, ScoredRollout, Verdict


@dataclass(frozen=True)
class Payload:
    """Result of the reward function for one rollout."""

    split: str
    """Name of the set: "train", or the name of a validation set."""
    scored: ScoredRollout
    """Rollout with verdict and reward."""
    truth: GroundTruth | None = None
    """For a critique: label of the solution."""
    canaries: tuple[CanaryResult, ...] = ()
    """Results of the canaries that were judged since the last payload of this worker."""
    usage: Usage = field(default_factory=Usage)
    """Tokens of the judge since the last payload of this worker."""


def encode(payload: Payload) -> str:
    """Return a payload as JSON."""
    return json.dumps(asdict(payload))


def encode_error(error: Exception) -> str:
    """Return an exception of the reward function as JSON, with its traceback if it is no error of the user.

    verl drops a rollout if its reward function raises, and continues. `decode` raises the exception in the trainer.
    """
    is_bug = not isinstance(error, errors.FapoError)
    message = "".join(traceback.format_exception(error)) if is_bug else str(error)
    return json.dumps({"error": type(error).__name__, "message": message})


def decode(text: str, reward: float, num_tokens: int, max_tokens: int) -> Payload:
    """Return the payload in a text, completed by numbers that the reward function did not have.

    Args:
        text: Result of `encode` or `encode_error`.
        reward: Reward that verl trains on, with overlong shaping; NaN for an unscored rollout.
        num_tokens: Length of the response in tokens.
        max_tokens: Length limit of a response in tokens.

    Returns:
        The payload. Its reward has the part "overlong", and its rollout has a length.

    Raises:
        FapoError: The reward function has raised this error of the user.
        RuntimeError: The reward function has raised another exception; its traceback is in the message.
    """
    table = json.loads(text)
    if "error" in table:
        raise getattr(errors, table["error"], RuntimeError)(table["message"])
    found = table["scored"]
    rollout = Rollout(**found["rollout"] | {"problem": Problem(**found["rollout"]["problem"])})
    turns = tuple(Given(**turn) if isinstance(turn, dict) else turn for turn in rollout.earlier_turns)
    truncated = reaches_limit(num_tokens, max_tokens)
    rollout = replace(rollout, num_tokens=num_tokens, truncated=truncated, earlier_turns=turns)
    parts, value = found["reward"]["parts"], found["reward"]["value"]
    if value is not None:
        parts = {**parts, "overlong": round(reward - value, 6)}
        value += parts["overlong"]
    verdict = _verdict(found["verdict"]) if found["verdict"] else None
    if verdict and verdict.critique == rollout.response:  # a GenRM is in training: its response is the critique
        verdict = replace(verdict, num_tokens=num_tokens)
    scored = ScoredRollout(rollout, found["correct"], verdict, Reward(value, parts), found["check_error"])
    canaries = tuple((_verdict(verdict), label) for verdict, label in table["canaries"])
    truth = GroundTruth(*table["truth"]) if table["truth"] else None
    return Payload(table["split"], scored, truth, canaries, Usage(**table["usage"]))


def _verdict(table: dict[str, Any]) -> Verdict:
    """Return a verdict; JSON has made a list of its scores."""
    return Verdict(**table | {"scores": tuple(table["scores"])})
