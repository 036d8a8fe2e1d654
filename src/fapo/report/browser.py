"""The rollout browser and the review by hand, as parts of a page: rollouts, packed, and the script that shows them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fapo.report.rollouts import LIMIT, named_policies, pack, sampling_rate, shown_rollouts
from fapo.training.run_reader import Run

ASSETS = Path(__file__).parent / "assets"
"""Templates, scripts and style of the pages."""
BROWSER = ("common.js", "math.js", "browse.js", "review.js")
"""Scripts of the rollout browser."""


@dataclass(frozen=True)
class Browser:
    """Contents of the rollout browser of a page."""

    packed: str
    """Rollouts as base64 text, from `pack`."""
    num_rollouts: int
    """Number of rollouts in it, at least 1."""
    sampling_rate: float
    """Fraction of all rollouts that was chosen at random; 1 means all."""


def make_browser(runs: Sequence[Run], limit: int = LIMIT) -> Browser | None:
    """Choose and pack the rollouts of the policies for a page.

    Args:
        runs: Runs of policies and of judges; those of judges are left out.
        limit: Approximate limit of the number of rollouts.

    Returns:
        The contents of the browser; None if there is no rollout, or `limit` is 0.
    """
    if not limit:
        return None
    policies = named_policies(runs)
    rate = sampling_rate([file for run in policies.values() for file in run.rollout_files], limit)
    shown = [rollout for name, run in policies.items() for rollout in shown_rollouts(name, run, rate)]
    return Browser(pack(shown), len(shown), rate) if shown else None


def script(*names: str) -> str:
    """Return the JavaScript of a page, from the files of these names."""
    return "".join((ASSETS / name).read_text(encoding="utf-8") for name in names)


def script_source(text: str) -> str:
    """Return the hash by which a content security policy allows a script to run, and no text of a rollout."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"
