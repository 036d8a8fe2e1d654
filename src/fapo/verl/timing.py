"""Where the time of a step goes, from verl's own clocks, under the names of the TRL engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Pending:
    """The metrics of a step that is not over."""

    step: int
    """Its number."""
    metrics: dict[str, float]
    """Those that are known."""
    exposed: float
    """Seconds from the last rollout to the last verdict."""
    timing: Mapping[str, float]
    """The trainer's clock, which it fills in until the step is over."""

    def times(self) -> dict[str, float]:
        """time/rollout, time/score (what the last verdicts took beyond the last rollout), time/update: the rest.

        Without checkpoints. {} where the clock is not to be seen, or the step has been broken off.
        """
        if not {"gen", "step"} <= self.timing.keys():
            return {}
        gen, whole = self.timing["gen"], self.timing["step"] - self.timing.get("save_checkpoint", 0.0)
        return {"time/rollout": gen - self.exposed, "time/score": self.exposed, "time/update": whole - gen}


def exposed_seconds(metrics: Sequence[Mapping[str, float]]) -> float:
    """Seconds from the last rollout to the last verdict, by what verl measured of each rollout.

    generate_sequences and compute_score follow each other, and all rollouts of a step are asked for together.
    """
    written = [row.get("generate_sequences", 0.0) for row in metrics]
    scored = [end + row.get("compute_score", 0.0) for end, row in zip(written, metrics, strict=True)]
    return max(scored, default=0.0) - max(written, default=0.0)
