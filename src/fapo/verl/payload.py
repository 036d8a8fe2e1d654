"""A scored rollout as text, on its way from verl's reward workers to the trainer: verl carries numbers and strings."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

from fapo.judge.canaries import CanaryResult
from fapo.types import Problem, Reward, Rollout, ScoredRollout, Verdict


@dataclass(frozen=True)
class Parcel:
    """What the reward function found out."""

    split: str
    """Name of the set: "train", or a validation set's."""
    scored: ScoredRollout
    """The rollout, with verdict and reward."""
    label: int | None = None
    """For a critique: the first wrong step of what it criticises, None for none."""
    canaries: tuple[CanaryResult, ...] = ()
    """What the judge said of canaries since the last parcel of its worker."""


def wrap(parcel: Parcel) -> str:
    """The parcel as JSON."""
    return json.dumps(asdict(parcel))


def unwrap(text: str, reward: float, num_tokens: int, max_tokens: int) -> Parcel:
    """The parcel again, with what the reward function did not know.

    `reward` is what verl trains on: with overlong shaping, NaN for an unscored rollout.
    """
    table = json.loads(text)
    found = table["scored"]
    response, parts, value = found["rollout"]["response"], found["reward"]["parts"], found["reward"]["value"]
    if value is not None:
        parts = {**parts, "overlong": round(reward - value, 6)}
        value += parts["overlong"]
    rollout = Rollout.from_text(Problem(**found["rollout"]["problem"]), response, num_tokens, max_tokens)
    verdict = Verdict(**found["verdict"]) if found["verdict"] else None
    if verdict and verdict.critique == response:  # the model in training is the critic
        verdict = replace(verdict, num_tokens=num_tokens)
    scored = ScoredRollout(rollout, found["correct"], verdict, Reward(value, parts))
    return Parcel(table["split"], scored, table["label"], tuple((Verdict(**v), true) for v, true in table["canaries"]))
