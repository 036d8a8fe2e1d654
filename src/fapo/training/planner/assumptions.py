"""Assumptions of `fapo plan`: quantities that a config does not contain."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from fapo.errors import ConfigError

if TYPE_CHECKING:
    from fapo.config.schema import Config

CRITIQUE_TOKENS = 3400
"""Default mean length of a critique in tokens: the middle of the published range of 3000 to 3800."""


@dataclass(frozen=True)
class PlanAssumptions:
    """Quantities that a config does not contain."""

    gpus: int = 8
    """Number of GPUs that write rollouts and train the policy."""
    response: int | None = None
    """Mean length of a response in tokens; the default is a fifth of rollout.max_tokens."""
    prompt: int = 200
    """Mean length of the prompt of the trained model in tokens."""
    accuracy: float = 0.5
    """Fraction of rollouts with a correct final answer; the judge reads only these."""
    critique: int | None = None
    """Mean length of a critique in tokens; the default is 3400 or judge.max_tokens, whichever is smaller."""
    judge_model: str = "Qwen3-4B"
    """Architecture of a served judge: a known name or a folder with config.json."""
    gpu_memory: float = 80.0
    """Memory of one GPU in GiB."""
    gpu_tflops: float = 989.0
    """Peak bfloat16 TFLOP/s of one GPU without sparsity; the default is an H100 SXM."""
    gpu_bandwidth: float = 3.35
    """Memory bandwidth of one GPU in TB/s; the default is an H100 SXM."""
    utilisation: float = 0.35
    """Fraction of the peak FLOP/s that the update and the reading of prompts reach."""
    rollout_seconds: float | None = None
    """Measured seconds to generate the rollouts of one step; the default is the bandwidth bound."""
    judge_tokens_per_second: float | None = None
    """Measured critique tokens a second of one judge replica under full load; the default is the hardware bound."""

    def check(self, limit: int) -> None:
        """Raise ConfigError if an assumption is out of range; `limit` is rollout.max_tokens."""
        most = {"accuracy": 1, "utilisation": 1, "response": limit}
        for name, value in asdict(self).items():
            option = f"--{name.replace('_', '-')}"
            if isinstance(value, int | float) and not 0 < value <= most.get(name, math.inf):
                raise ConfigError(f"{option} must be above 0 and at most {most.get(name, 'infinity')}, not {value:g}")

    def mean_response(self, config: Config) -> int:
        """Return the mean length of a response in tokens."""
        return self.response or max(1, config.rollout.max_tokens // 5)

    def mean_critique(self, config: Config) -> int:
        """Return the mean length of a critique in tokens; 0 without a model that writes critiques."""
        judge = config.judge
        if judge is None or judge.kind == "oracle" or judge.kind == "prm" or judge.kind == "cascade":
            return 0
        return min(self.critique or CRITIQUE_TOKENS, judge.max_tokens)
