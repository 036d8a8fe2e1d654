"""A training run that an exception ends after a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest


class Interruption(Exception):
    """Exception that ends a run."""


def interrupted(train: Callable[..., Any], config: Any, step: int) -> None:
    """Train until a step is over.

    Args:
        train: Function of a config and a progress callback, such as `fapo.trl.train.train`.
        config: Config of the run.
        step: Step after which the run ends.
    """

    def stop(_task: str, done: int, *_: Any) -> None:
        if done == step:
            raise Interruption

    with pytest.raises(Interruption):
        train(config, progress=stop)
