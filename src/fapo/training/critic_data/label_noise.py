"""Labels made wrong on purpose, to see what a GenRM makes of a teacher that errs. Pure."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from fapo.errors import ConfigError
from fapo.types import LabelledSolution


def with_label_noise(solutions: Sequence[LabelledSolution], share: float, seed: int) -> list[LabelledSolution]:
    """The solutions in order, round(share * n) of them mislabelled; a larger share errs on the same ones, too.

    A sound solution is said to be wrong at a step drawn at random. Of a flawed one half the time the error is missed,
    half the time another step is named (where there is none: missed). Raises ConfigError unless 0 <= share <= 1.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"label noise is a share of the labels, from 0 to 1; got {share}")
    wrong = [_wrong_label(solution, random.Random(f"{seed}/{i}")) for i, solution in enumerate(solutions)]
    order = random.Random(seed).sample(range(len(solutions)), len(solutions))
    chosen = set(order[: round(share * len(solutions))])
    return [
        replace(solution, mislabelled=True, wrong_step=wrong[i]) if i in chosen else solution
        for i, solution in enumerate(solutions)
    ]


def _wrong_label(solution: LabelledSolution, rng: random.Random) -> int | None:
    others = [step for step in range(len(solution.steps)) if step != solution.error_step]
    if solution.error_step is not None and (not others or rng.random() < 0.5):
        return None
    return rng.choice(others)
