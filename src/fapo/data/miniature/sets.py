"""What of the miniature a config can name: "miniature:policy", "miniature:train", "miniature:harder" ..."""

from __future__ import annotations

import random
from pathlib import Path

from fapo.data import LabelledSolution, read_labelled
from fapo.errors import ConfigError, DataError
from fapo.miniature.world import EASY, HARDER, Difficulty, Split, examine, parse, tasks
from fapo.steps import split
from fapo.types import GroundTruth, Judge, Problem, Rollout, Verdict

PREFIX = "miniature:"
FOLDER = Path(__file__).parent / "base"
"""The base checkpoints and critic data that `fapo miniature build` made."""
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


def truth(rollout: Rollout) -> GroundTruth:
    """Return first wrong step and kind of flaw of a solution, by the oracle."""
    found = examine(parse(rollout.problem.text), rollout.response)
    return GroundTruth(found.error_step, found.flaw)


def has_oracle(problem: Problem) -> bool:
    """Return whether the oracle can check solutions of this problem: it can for problems of the miniature."""
    return problem.source in SOURCES


def known_truth(rollout: Rollout) -> GroundTruth | None:
    """Return first wrong step and kind of flaw by the oracle; None for problems that are not from the miniature."""
    return truth(rollout) if has_oracle(rollout.problem) else None


def oracle(false_negative_rate: float = 0.0, false_positive_rate: float = 0.0) -> Judge:
    """Return a judge that is always right, or errs at two rates.

    An error depends on the rollout alone: the same rollout gets the same verdict again.

    Args:
        false_negative_rate: Rate of flawed rollouts that are passed.
        false_positive_rate: Rate of fully correct rollouts that are flagged, at a random step.

    Returns:
        The judge.
    """

    def verdict(rollout: Rollout) -> Verdict:
        error_step = truth(rollout).error_step
        chance = random.Random(f"{rollout.problem.id} {rollout.response}")
        if chance.random() < (false_positive_rate if error_step is None else false_negative_rate):
            num_steps = max(len(split(rollout.response)), 1)
            error_step = chance.randrange(num_steps) if error_step is None else None
        return Verdict.from_step(error_step, "oracle")

    async def judge(rollouts: list[Rollout]) -> list[Verdict]:
        return [verdict(rollout) for rollout in rollouts]

    return judge  # type: ignore[return-value]
