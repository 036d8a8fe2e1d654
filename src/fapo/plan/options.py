"""What a plan has to be told besides the config: lengths, shares and GPUs, as options of the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import arg


@dataclass(frozen=True)
class PlanOptions:
    """What is assumed where nothing was measured."""

    measured: Annotated[Path | None, arg(name="from")] = None
    """Run folder to take lengths, accuracy and speeds from, instead of assuming them. Of a judge that was asked beside
    the rollouts the speed is not known and assumed all the same. --gpus, those of that run, is 1 unless given."""
    response: float | None = None
    """Mean length of a response in tokens, before the limit cuts it; by default a fifth of the limit."""
    response_spread: float = 0.8
    """Standard deviation of the logarithm of that length."""
    accuracy: float = 0.5
    """Share of rollouts with a right answer: those that are judged."""
    critique: float | None = None
    """Mean length of a critique in tokens; by default 3400, as the paper has them, or the limit if that is less."""
    critique_spread: float = 0.4
    """Standard deviation of the logarithm of that length."""
    question: int = 200
    """Tokens of the policy's prompt."""
    judge_prompt: int = 600
    """Tokens of the judge's prompt besides the solution: instruction, question, answer, tags."""
    shape: str | None = None
    """Whose shape the policy has: a folder with its config.json, or a model known here; by default model.path."""
    judge_shape: str = "Qwen3-4B"
    """The same for a served judge, of which the config knows the name alone."""
    gpus: int | None = None
    """GPUs of the policy; by default trainer.nnodes x trainer.n_gpus_per_node of [verl]."""
    gpu_memory: float = 80.0
    """GiB of a GPU."""
    gpu_flops: float = 989.0
    """TFLOP/s of a GPU in bfloat16; the default is the data sheet's of an H100 SXM, as the next one."""
    gpu_bandwidth: float = 3.35
    """TB/s between a GPU and its memory."""
    decode_share: float = 0.6
    """Share of the bandwidth that writing tokens reaches."""
    flops_share: float = 0.35
    """Share of the TFLOP/s that training and reading prompts reach."""
    memory_share: float = 0.9
    """Share of a GPU's memory that the judge's server takes; the policy's is gpu_memory_utilization of [verl]."""
    judge_gpus: int = 1
    """GPUs of one replica of the judge."""
    judge_slots: int = 256
    """Critiques that one replica writes at once, if its memory holds them."""
    goal: float = 0.05
    """Share of a step by which judging may lengthen it."""
    replicas: int = 64
    """Replicas of the judge, at most."""
    seed: int = 0
    """Seed of the draws."""

    def check(self) -> None:
        """Raise ValueError for a number that cannot be, naming the option."""
        for name in _ABOVE_0:
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{_option(name)} must be above 0, not {value:g}")
        for name in _SHARES:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{_option(name)} is a share, from 0 to 1, not {getattr(self, name):g}")
        for name in _NOT_BELOW_0:
            if getattr(self, name) < 0:
                raise ValueError(f"{_option(name)} must not be below 0, but is {getattr(self, name):g}")


_SHARES = ("accuracy", "decode_share", "flops_share", "memory_share", "goal")
_NOT_BELOW_0 = ("response_spread", "critique_spread", "question", "judge_prompt")
_ABOVE_0 = (
    *("response", "critique", "gpus", "gpu_memory", "gpu_flops", "gpu_bandwidth", "judge_gpus", "judge_slots"),
    *("replicas", "decode_share", "flops_share", "memory_share"),
)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
