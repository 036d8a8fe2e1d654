"""What one step has to write: lengths of responses and critiques, drawn from assumptions or from a run's record."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np

from fapo.config import Config, read_config
from fapo.data import read_jsonl
from fapo.errors import ConfigError
from fapo.plan.options import PlanOptions

CRITIQUE = 3400
"""Tokens of a critique: the middle of what the paper reports."""


@dataclass(frozen=True)
class Workload:
    """The rollouts of one step."""

    responses: tuple[int, ...]
    """Tokens of each rollout."""
    critiques: tuple[tuple[int, ...], ...]
    """Tokens of each critique of each rollout; none where it is not judged."""
    question: int
    """Tokens of a rollout's prompt."""
    judge_prompt: int
    """Tokens of the judge's prompt besides the solution."""

    @property
    def policy_tokens(self) -> int:
        """Tokens the policy writes."""
        return sum(self.responses)

    @property
    def judge_tokens(self) -> int:
        """Tokens the judge writes."""
        return sum(map(sum, self.critiques))

    @property
    def read_tokens(self) -> int:
        """Tokens the judge reads."""
        rows = zip(self.responses, self.critiques, strict=True)
        return sum(len(critiques) * (self.judge_prompt + tokens) for tokens, critiques in rows)


def assumed(config: Config, options: PlanOptions) -> Workload:
    """Log-normal lengths, cut at the limits; of the rollouts that end by themselves so many are right as are needed.

    The quantiles of the lengths are evenly spread, so that a plan does not hang on the luck of a draw.
    """
    rng = random.Random(options.seed)
    number, limit = config.rollout.num_prompts * config.rollout.group_size, config.rollout.max_tokens
    responses = _lengths(number, options.response or limit / 5, options.response_spread, limit, rng)
    judge, judged = config.judge, set[int]()
    if judge and config.reward.kind in ("fapo", "step_ratio"):
        ended = [i for i, tokens in enumerate(responses) if tokens < limit]
        share = len(ended) if judge.all else min(len(ended), round(options.accuracy * number))
        judged = set(range(number)) if judge.all else set(rng.sample(ended, share))
    votes, most = (judge.votes, judge.max_tokens) if judge else (1, 1)
    mean = options.critique or min(CRITIQUE, most)
    lengths = iter(_lengths(len(judged) * votes, mean, options.critique_spread, most, rng))
    critiques = tuple(tuple(next(lengths) for _ in range(votes)) if i in judged else () for i in range(number))
    return Workload(tuple(responses), critiques, options.question, options.judge_prompt)


def _lengths(number: int, mean: float, spread: float, limit: int, rng: random.Random) -> list[int]:
    """So many lengths from 1 to `limit`, in random order."""
    normal = NormalDist(math.log(mean) - spread**2 / 2, spread) if spread else None
    values = [math.exp(normal.inv_cdf((i + 0.5) / number)) if normal else mean for i in range(number)]
    rng.shuffle(values)
    return [min(limit, max(1, round(value))) for value in values]


# --- from a run -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """What a run of the TRL engine has on record."""

    rows: tuple[tuple[int, int], ...]
    """Tokens of each rollout in training, and of its critique."""
    rollout: tuple[float, float]
    """Seconds in which a batch of rollouts grows by a token, and what each rollout in it adds."""
    judge: tuple[float, float]
    """The same for critiques."""
    judge_alone: bool
    """Whether the judge was asked after the rollouts, so that its time is known."""
    update_seconds: float
    """Seconds of the update for each token of the rollouts."""


def read_run(folder: Path) -> Measured:
    """Lengths and seconds of a run folder. Raises ConfigError saying what it lacks."""
    try:
        rows = [row for row in read_jsonl(folder / "rollouts.jsonl", ignore_torn_tail=True) if row["split"] == "train"]
        logged = [row for row in read_jsonl(folder / "metrics.jsonl", ignore_torn_tail=True) if row["kind"] == "train"]
    except OSError as error:
        raise ConfigError(f"--from {folder}: no run folder: {error.strerror}: {error.filename}") from None
    timed = {row["step"]: row for row in logged if row.get("time/rollout") is not None}
    rows = [row for row in rows if row["step"] in timed]
    if not rows:
        raise ConfigError(
            f"--from {folder}: no step in it has both rollouts and time/rollout; give a run of --engine trl"
        )
    written: dict[int, tuple[list[int], list[int]]] = {step: ([], []) for step in timed}
    for row in rows:
        written[row["step"]][0].append(row["num_tokens"])
        written[row["step"]][1].append(row["critique_tokens"])

    def pace(part: str, i: int) -> tuple[float, float]:
        lengths = [pair[i] for pair in written.values()]
        seconds = [timed[step][f"time/{part}"] for step in written]
        return batch_pace([max(own, default=0) for own in lengths], [sum(own) for own in lengths], seconds)

    return Measured(
        tuple((row["num_tokens"], row["critique_tokens"]) for row in rows),
        pace("rollout", 0),
        pace("score", 1),
        _judge_alone(folder),
        sum(row["time/update"] for row in timed.values()) / max(1, sum(row["num_tokens"] for row in rows)),
    )


def _judge_alone(folder: Path) -> bool:
    """A judge in the trainer's process waits for the rollouts; a served one, or any under verl, does not."""
    config = read_config(folder / "config.json")
    return config.judge is not None and config.judge.kind != "served" and not (folder / "hydra").exists()


def batch_pace(longest: Sequence[int], total: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """(a, b), neither below 0, with seconds = a longest + b total by least squares, over the steps [num_steps].

    A batch that is written together takes a for each token of its longest sequence and b for each token of all.
    """
    columns, target = np.array([longest, total], dtype=float).T, np.array(seconds, dtype=float)
    both = np.linalg.lstsq(columns, target, rcond=None)[0]
    if (both >= 0).all():
        return float(both[0]), float(both[1])
    alone = [float(c @ target / (c @ c)) if c.any() else 0.0 for c in columns.T]
    errors = [float(((target - a * c) ** 2).sum()) for a, c in zip(alone, columns.T, strict=True)]
    return (alone[0], 0.0) if errors[0] <= errors[1] else (0.0, alone[1])


def drawn(config: Config, measured: Measured, options: PlanOptions) -> Workload:
    """A step of a config with rollouts like those of a run, drawn with their critiques.

    What the judge reads counts only where its speed was not measured, since that holds it.
    """
    rng = random.Random(options.seed)
    number, limit = config.rollout.num_prompts * config.rollout.group_size, config.rollout.max_tokens
    rows = rng.choices(measured.rows, k=number)
    asked = config.judge is not None and config.reward.kind in ("fapo", "step_ratio")
    critiques = tuple((tokens,) if tokens and asked else () for _, tokens in rows)
    read = 0 if measured.judge_alone else options.judge_prompt
    return Workload(tuple(min(limit, tokens) for tokens, _ in rows), critiques, 0, read)


def mean_context(question: int, tokens: Sequence[int]) -> float:
    """Tokens before the one being written, on average over all that are written."""
    return question + sum(t * t for t in tokens) / (2 * sum(tokens)) if sum(tokens) else float(question)
