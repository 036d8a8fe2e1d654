"""The data sets and models of the miniature that a config can name, such as "miniature:train" or "miniature:policy"."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from fapo.data.miniature.world import EASY, EXPOSED, HARDER, Difficulty, Split, tasks
from fapo.data.problems import read_labelled
from fapo.errors import ConfigError, DataError
from fapo.types import LabelledSolution, Problem

PREFIX = "miniature:"
BASE_FOLDER = Path(__file__).parent / "base"
"""Folder of the base models and of the critic data, made by `python -m experiments.miniature build`."""
CONFIG_FOLDER = Path(__file__).parent / "configs"
"""Folder of the configs that train in the miniature."""


class ProblemSet(NamedTuple):
    """Recipe of a problem set; the same recipe always gives the same problems."""

    seed: int
    """Seed of the generator."""
    size: int
    """Number of problems."""
    difficulty: Difficulty
    """Difficulty of the problems."""
    split: Split
    """Split of the chains; two splits never share a chain."""
    leaps: bool = False
    """Whether a solution may leave out lines, which are done in the head; the oracle then reads the other lines."""
    repeats: bool = False
    """Whether a solution may repeat lines."""


SETS = {
    "train": ProblemSet(1, 8192, EASY, "train"),
    "validation": ProblemSet(2, 512, EASY, "validation"),
    "harder": ProblemSet(3, 512, HARDER, "validation"),
    "test": ProblemSet(4, 2048, EASY, "test"),
    "test-harder": ProblemSet(5, 2048, HARDER, "test"),
    "exposed-train": ProblemSet(6, 8192, EXPOSED, "train"),
    "exposed-validation": ProblemSet(7, 512, EXPOSED, "validation"),
    "leaps-train": ProblemSet(1, 8192, EASY, "train", leaps=True),
    "leaps-validation": ProblemSet(2, 512, EASY, "validation", leaps=True),
    "leaps-harder": ProblemSet(3, 512, HARDER, "validation", leaps=True),
    "repeats-train": ProblemSet(1, 8192, EASY, "train", repeats=True),
    "repeats-validation": ProblemSet(2, 512, EASY, "validation", repeats=True),
    "repeats-harder": ProblemSet(3, 512, HARDER, "validation", repeats=True),
}
"""Recipe of each problem set, by name."""
SOURCES = {f"miniature-{name}": problem_set for name, problem_set in SETS.items()}
"""Set of the problems that the oracle can check, by `Problem.source`."""


def is_miniature(name: str) -> bool:
    """Return whether a source or a model path names a part of the miniature."""
    return name.startswith(PREFIX)


def base_model(name: str) -> Path:
    """Return the folder of a base model ("miniature:policy", "miniature:genrm"); raise ConfigError if there is none."""
    folder = BASE_FOLDER / name.removeprefix(PREFIX)
    if not folder.is_dir():
        known = sorted(PREFIX + f.name for f in BASE_FOLDER.glob("*/"))
        raise ConfigError(f"no model {name!r} in the miniature, known: {', '.join(known) or 'none'}")
    return folder


def problems(name: str, limit: int | None = None) -> list[Problem]:
    """Make the problems of a set.

    Args:
        name: Name of the set with its prefix, such as "miniature:train".
        limit: Number of problems, the first ones; None returns all.

    Returns:
        The problems, always the same ones.

    Raises:
        DataError: There is no set of this name.
    """
    key = name.removeprefix(PREFIX)
    if key not in SETS:
        raise DataError(f"no problems {name!r} in the miniature, known: {', '.join(PREFIX + s for s in SETS)}")
    found = SETS[key]
    size = found.size if limit is None else min(found.size, limit)
    return [task.problem(f"miniature-{key}") for task in tasks(found.seed, size, found.difficulty, found.split)]


def labelled(name: str, limit: int | None = None) -> list[LabelledSolution]:
    """Load labelled solutions of the base policy.

    Args:
        name: "miniature:critic-train" or "miniature:critic-test".
        limit: Number of solutions, the first ones; None returns all.

    Returns:
        The solutions, all of them with a correct final answer.

    Raises:
        DataError: There are no labelled solutions of this name.
    """
    file = BASE_FOLDER / f"{name.removeprefix(PREFIX)}.jsonl"
    if not file.is_file():
        known = sorted(PREFIX + f.stem for f in BASE_FOLDER.glob("*.jsonl"))
        raise DataError(f"no labelled solutions {name!r} in the miniature, known: {', '.join(known) or 'none'}")
    return read_labelled(file, limit=limit)


def has_oracle(problem: Problem) -> bool:
    """Return whether the oracle can check solutions of a problem, which it can for problems of the miniature."""
    return problem.source in SOURCES


def freedom(problem: Problem) -> dict[str, bool]:
    """Return whether solutions of a problem may leave out lines ("leaps") and repeat them ("repeats").

    Both are False for a problem that is not of the miniature.
    """
    found = SOURCES.get(problem.source)
    return {"leaps": found is not None and found.leaps, "repeats": found is not None and found.repeats}
