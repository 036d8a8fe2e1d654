"""Label noise: labels that are made wrong on purpose, to measure how much a GenRM suffers. Pure functions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from fapo.errors import ConfigError
from fapo.types import LabelledSolution


def with_label_noise(solutions: Sequence[LabelledSolution], rate: float, seed: int) -> list[LabelledSolution]:
    """Return the solutions with round(rate * n) wrong labels.

    The wrong label of a correct solution names a random step. The wrong label of a flawed solution names no error or
    another random step, with equal probability; it names no error if there is no other step.

    Args:
        solutions: Labelled solutions, n of them.
        rate: Rate of wrong labels, from 0 to 1.
        seed: Seed of the choice. A larger rate keeps the wrong labels of a smaller one.

    Returns:
        Solutions in the same order.

    Raises:
        ConfigError: The rate is not between 0 and 1.
    """
    if not 0 <= rate <= 1:
        raise ConfigError(f"label noise must be a rate from 0 to 1; got {rate}")
    wrong = [_wrong_label(solution, random.Random(f"{seed}/{i}")) for i, solution in enumerate(solutions)]
    order = random.Random(seed).sample(range(len(solutions)), len(solutions))
    chosen = set(order[: round(rate * len(solutions))])
    return [
        replace(solution, mislabelled=True, wrong_step=wrong[i]) if i in chosen else solution
        for i, solution in enumerate(solutions)
    ]


def _wrong_label(solution: LabelledSolution, rng: random.Random) -> int | None:
    """Return a wrong label for a solution; None means "no error"."""
    others = [step for step in range(len(solution.steps)) if step != solution.error_step]
    if solution.error_step is not None and (not others or rng.random() < 0.5):
        return None
    return rng.choice(others)
