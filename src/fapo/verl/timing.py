"""Seconds of the parts of a step, from verl's clocks, under the names that the TRL engine uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class PendingMetrics:
    """Metrics of a step that is not over."""

    step: int
    """Number of the step."""
    metrics: dict[str, float]
    """Metrics that are known before the update."""
    exposed_seconds: float | None
    """Seconds from the last rollout to the last verdict; None where rollouts begin before their step."""
    timing: Mapping[str, float]
    """Seconds of each part by the trainer's clock, which adds to it until the step is over."""

    def seconds(self) -> dict[str, float]:
        """Return time/rollout, time/score and time/update, without the time for checkpoints.

        time/score is the time from the last rollout to the last verdict. Where rollouts begin before their step,
        time/rollout is the time that the step waited for rollouts and verdicts, and there is no time/score. The result
        is empty if the clock is not known or the step was not finished.
        """
        if not {"gen", "step"} <= self.timing.keys():
            return {}
        generation = self.timing["gen"]  # until the last verdict
        step = self.timing["step"] - self.timing.get("save_checkpoint", 0.0)
        update = {"time/update": step - generation}
        if self.exposed_seconds is None:
            return {"time/rollout": generation} | update
        return {"time/rollout": generation - self.exposed_seconds, "time/score": self.exposed_seconds} | update


def exposed_seconds(metrics: Sequence[Mapping[str, float]]) -> float:
    """Return the seconds from the last rollout to the last verdict of a step.

    Args:
        metrics: verl's seconds for each rollout: generate_sequences, then compute_score. All rollouts start together.

    Returns:
        Seconds, at least 0.
    """
    written = [row.get("generate_sequences", 0.0) for row in metrics]
    scored = [end + row.get("compute_score", 0.0) for end, row in zip(written, metrics, strict=True)]
    return max(scored, default=0.0) - max(written, default=0.0)
