"""Flawed-aware policy optimization: train language models that reason correctly, not just to the right answer.

The packages stand in the order of the data. `data` loads problems, `inference` writes text, `judge` finds the first
wrong step, and `rewards` turns verdicts into rewards and advantages. `evaluation` measures, `training` holds the parts
that all trainers share, and `trl` and `verl` update the policy. `docs/architecture.md` follows one rollout through
them.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fapo.inference.client import ChatClient
    from fapo.judge.genrm import GenRM
    from fapo.trl.reward import flawed_aware_reward
    from fapo.types import Judge, Problem, Reward, Rollout, Verdict

__all__ = ["ChatClient", "GenRM", "Judge", "Problem", "Reward", "Rollout", "Verdict", "flawed_aware_reward"]
__version__ = "0.1.0"

_LAZY = {
    "ChatClient": "fapo.inference.client",
    "GenRM": "fapo.judge.genrm",
    "flawed_aware_reward": "fapo.trl.reward",
    "FlawedPositiveJudge": "fapo.integrations.verifiers",
    **dict.fromkeys(("Judge", "Problem", "Reward", "Rollout", "Verdict"), "fapo.types"),
}
"""Names that are imported at their first use, so that the command line starts fast."""

if find_spec("verifiers"):  # it takes `id = "fapo"` for the judge among these names
    __all__ += ["FlawedPositiveJudge"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
