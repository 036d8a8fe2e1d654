"""Versions of TRL, and the private methods of its GRPOTrainer that this package overrides.

The reward function needs none of them and works with every supported version. TRL has no hooks for four other things.
Each stands in one module and uses these methods:

* `zero_advantage`: `_compute_loss`, `_get_per_token_logps_and_entropies`, `_metrics`; with any other version than
  `CHECKED_VERSION` the loss is TRL's own;
* `judge_while_generating` and `first_error`: `_generate_and_score_completions`;
* `trainer`: `_generate` and `_calculate_rewards`, to time them and to record after them, `_prepare_inputs`, `_metrics`;
  `_calculate_rewards` also returns the advantages of rewards that compare a group in another way (`GroupReward`), and
  rewards that are corrected for the rates of an audit. `_generate_and_score_completions` returns a batch, in which
  `token_advantages` puts the advantages of tokens.
"""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from importlib import metadata
from typing import Any

from fapo.errors import EngineError

OLDEST, BELOW = (1, 6), (2, 0)
"""First supported version of TRL, and the first one after it that is not."""
CHECKED_VERSION = "1.16"
"""Minor version of TRL on which these methods were checked."""


def installed_version() -> str | None:
    """Return the version of the installed TRL, without importing it; None if it is not installed."""
    try:
        return metadata.version("trl")
    except metadata.PackageNotFoundError:
        return None


def require_supported() -> None:
    """Raise EngineError if the installed TRL is older or newer than the supported versions."""
    version = installed_version()
    found = re.match(r"(\d+)\.(\d+)", version or "")
    if found and not OLDEST <= (int(found[1]), int(found[2])) < BELOW:
        oldest, below = f"{OLDEST[0]}.{OLDEST[1]}", BELOW[0]
        reason = ", which counts a missing reward as 0" if (int(found[1]), int(found[2])) < OLDEST else ""
        raise EngineError(
            f"TRL {version} is installed{reason}; fapo supports TRL >= {oldest} and < {below}: "
            f"pip install 'trl>={oldest},<{below}'"
        )


def require_methods(trainer: type[Any], names: tuple[str, ...], user: str) -> None:
    """Raise EngineError if a trainer of TRL lacks private methods that are overridden.

    Args:
        trainer: Class of the trainer.
        names: Names of the methods.
        user: What overrides them, for the message.
    """
    if missing := [name for name in names if not hasattr(trainer, name)]:
        raise EngineError(
            f"TRL {installed_version()} is installed, whose {trainer.__name__} has no {', '.join(missing)}, which "
            f"{user} overrides; it works with the GRPOTrainer of TRL {CHECKED_VERSION}: "
            f"pip install 'trl=={CHECKED_VERSION}.*'"
        )


def is_checked() -> bool:
    """Return whether the installed TRL is the version for which the overrides were written."""
    return (installed_version() or "").startswith(f"{CHECKED_VERSION}.")


@lru_cache(maxsize=1)
def warn_unless_checked() -> None:
    """Log a warning, once, if the installed TRL is another version."""
    if not is_checked():
        logging.getLogger("fapo").warning(
            "TRL %s is installed; fapo's trainer was written for TRL %s. If it fails: pip install 'trl==%s.*'",
            *(installed_version(), CHECKED_VERSION, CHECKED_VERSION),
        )
