"""Version of TRL for which the overrides of its private methods were written.

TRL has no hooks for three things that this package does. Each stands in one module and uses these private methods of
GRPOTrainer:

* `zero_advantage`: `_compute_loss`, `_metrics`; the loss is TRL's own with any other version;
* `judge_while_generating`: `_generate_and_score_completions`;
* `trainer`: `_generate` and `_calculate_rewards`, to time them, and `_prepare_inputs`.
"""

from __future__ import annotations

import logging
from functools import lru_cache

import trl

CHECKED_VERSION = "1.16"
"""Minor version of TRL on which these methods were checked."""


def is_checked() -> bool:
    """Return whether the installed TRL is the version for which this package was written."""
    return bool(trl.__version__.startswith(f"{CHECKED_VERSION}."))


@lru_cache(maxsize=1)
def warn_unless_checked() -> None:
    """Log a warning, once, if the installed TRL is another version."""
    if not is_checked():
        logging.getLogger("fapo").warning(
            "TRL %s is installed; fapo's trainer was written for TRL %s. If it fails: pip install 'trl==%s.*'",
            *(trl.__version__, CHECKED_VERSION, CHECKED_VERSION),
        )
