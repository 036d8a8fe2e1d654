"""What of the miniature a config can name: "miniature:policy", "miniature:train", "miniature:harder" ..."""

from __future__ import annotations

from pathlib import Path

from fapo.data.miniature.world import EASY, HARDER, Difficulty, Split, tasks
from fapo.data.problems import read_labelled
from fapo.errors import ConfigError, DataError
from fapo.types import LabelledSolution, Problem

PREFIX = "miniature:"
FOLDER = Path(__file__).parent / "base"
CONFIGS = Path(__file__).parent / "configs"
"""The base checkpoints and critic data that `python -m experiments.miniature build` made."""
SETS: dict[str, tuple[int, int, Difficulty, Split]] = {
    "train": (1, 8192, EASY, "train"),
    "validation": (2, 512, EASY, "validation"),
    "harder": (3, 512, HARDER, "validation"),
    "test": (4, 2048, EASY, "test"),
    "test-harder": (5, 2048, HARDER, "test"),
}
"""Name -> seed, number of problems, difficulty, split."""
SOURCES = {f"miniature-{name}" for name in SETS}
"""`Problem.source` of the problems an oracle can check."""


def is_miniature(name: str) -> bool:
    """Whether a source or model path names a part of the miniature."""
    return name.startswith(PREFIX)


def model_folder(path: str) -> str:
    """Folder of a base checkpoint ("miniature:policy", "miniature:genrm"); any other path stays as it is."""
    if not is_miniature(path):
        return path
    folder = FOLDER / path.removeprefix(PREFIX)
    if not folder.is_dir():
        known = sorted(PREFIX + f.name for f in FOLDER.iterdir() if f.is_dir()) if FOLDER.is_dir() else []
        raise ConfigError(f"no model {path!r} in the miniature, known: {', '.join(known) or 'none'}")
    return str(folder)


def problems(source: str, limit: int | None = None) -> list[Problem]:
    """The problems of one set."""
    name = source.removeprefix(PREFIX)
    if name not in SETS:
        raise DataError(f"no problems {source!r} in the miniature, known: {', '.join(PREFIX + s for s in SETS)}")
    seed, num, difficulty, split = SETS[name]
    return [
        task.problem(f"miniature-{name}")
        for task in tasks(seed, num if limit is None else min(num, limit), difficulty, split)
    ]


def labelled(source: str, limit: int | None = None) -> list[LabelledSolution]:
    """Labelled correct solutions of the base policy ("miniature:critic-train", "miniature:critic-test")."""
    file = FOLDER / f"{source.removeprefix(PREFIX)}.jsonl"
    if not file.is_file():
        known = sorted(PREFIX + f.stem for f in FOLDER.glob("*.jsonl"))
        raise DataError(f"no labelled solutions {source!r} in the miniature, known: {', '.join(known) or 'none'}")
    return read_labelled(file, limit=limit)


def has_oracle(problem: Problem) -> bool:
    """Return whether the oracle can check solutions of this problem: it can for problems of the miniature."""
    return problem.source in SOURCES
