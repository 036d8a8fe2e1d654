"""Work folder of `fapo critic`: rollouts and votes are written as they arrive, and read back by the next run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fapo.data.jsonl import read_jsonl, write_jsonl
from fapo.data.steps import split_steps
from fapo.errors import ConfigError, DataError
from fapo.judge.verdict_counts import shortened
from fapo.judge.verdicts import verdict_from_row, verdict_row
from fapo.rewards.verify import Check
from fapo.types import Problem, Rollout, StepRule, Verdict

SAMPLE_FIELDS = ("id", "problem", "reference", "response", "num_tokens", "correct", "outcome")
"""Columns that a line of samples.jsonl must have."""
VOTE_FIELDS = ("id", "vote", "status", "error_step")
"""Columns that a line of labels.jsonl must have."""


@dataclass(frozen=True)
class WantedRollout:
    """Rollout that is wanted."""

    problem: Problem
    """Problem that is solved."""
    policy: str
    """Name of the policy."""


@dataclass(frozen=True)
class CorrectRollout:
    """Rollout with a correct final answer."""

    id: str
    """Id of the wanted rollout."""
    policy: str
    """Name of the policy that wrote it."""
    rollout: Rollout
    """Problem and response."""
    rule: StepRule
    """Rule by which the response is split into steps."""

    @property
    def steps(self) -> tuple[str, ...]:
        """Steps of the solution as a judge sees them, without surrounding blanks."""
        return tuple(step.strip() for step in split_steps(self.rollout.response, self.rule))


class WorkFolder:
    """Rollouts and votes that exist, among those that are wanted.

    samples.jsonl has a line for each rollout, and labels.jsonl one for each vote. Failed requests have no line, so they
    are repeated. Lines with other ids, for example from a run with a larger limit, are ignored. The order of the wanted
    rollouts is the order of the data.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], wanted: Mapping[str, WantedRollout], steps: StepRule
    ) -> None:
        """Open or create the folder.

        Args:
            folder: Work folder.
            settings: Settings that must be the same in each run on this folder.
            wanted: Rollouts that are wanted, by id.
            steps: Rule by which responses are split into steps.

        Raises:
            ConfigError: The folder was made with other settings.
            DataError: The folder holds rollouts of other problems, or a line without a column that is needed.
        """
        self.folder, self.wanted, self.steps = folder, wanted, steps
        self.outcomes: dict[str, str] = {}
        """Outcome of each rollout by id: right, wrong, or the status of a `Check` without a result."""
        self.votes: dict[tuple[str, int], Verdict] = {}
        """Verdicts by (id, number of the vote), without critiques; of unparsable ones the first characters are kept."""
        self._correct: dict[str, CorrectRollout] = {}
        check_same_settings(folder / "settings.json", settings)
        for row in _rows(folder / "samples.jsonl", SAMPLE_FIELDS):
            if row["id"] in wanted:
                self._remember(row)
        for row in _rows(folder / "labels.jsonl", VOTE_FIELDS):
            verdict = verdict_from_row(row)
            assert verdict, "a vote is never skipped"
            self.votes.setdefault((row["id"], row["vote"]), shortened(verdict))

    def distinct(self) -> list[CorrectRollout]:
        """Return the correct rollouts in order, and of equal solutions to equal problems only the first."""
        first: dict[tuple[str, tuple[str, ...]], CorrectRollout] = {}
        for key in self.wanted:
            if sample := self._correct.get(key):
                first.setdefault((sample.rollout.problem.text, sample.steps), sample)
        return list(first.values())

    def add_samples(self, samples: Sequence[tuple[str, Rollout, Check]]) -> None:
        """Write rollouts, each with its id and the check of its final answer."""
        rows = [
            {
                "id": key,
                "problem_id": rollout.problem.id,
                "problem": rollout.problem.text,
                "reference": rollout.problem.reference,
                "policy": self.wanted[key].policy,
                "response": rollout.response,
                "num_tokens": rollout.num_tokens,
                "correct": check.correct,
                "outcome": ("right" if check.correct else "wrong") if check.status == "ok" else check.status,
            }
            for key, rollout, check in samples
        ]
        write_jsonl(self.folder / "samples.jsonl", rows, append=True)
        for row in rows:
            self._remember(row)

    def add_votes(self, votes: Mapping[tuple[str, int], Verdict]) -> None:
        """Write votes by (id, number of the vote), with their critiques."""
        rows = [{"id": key, "vote": number, **verdict_row(verdict)} for (key, number), verdict in votes.items()]
        write_jsonl(self.folder / "labels.jsonl", rows, append=True)
        self.votes.update({place: shortened(verdict) for place, verdict in votes.items()})

    def _remember(self, row: Mapping[str, Any]) -> None:
        """Add a line of samples.jsonl to the outcomes; raise DataError if it belongs to another problem."""
        place = self.wanted[row["id"]]
        if (row["problem"], row["reference"]) != (place.problem.text, place.problem.reference):
            raise DataError(
                f"{self.folder}: problem {place.problem.id!r} was another one when it was sampled; "
                "choose another --out, or remove that folder"
            )
        self.outcomes[row["id"]] = row["outcome"]
        if row["correct"]:
            rollout = Rollout(place.problem, row["response"], row["num_tokens"])
            self._correct.setdefault(row["id"], CorrectRollout(row["id"], place.policy, rollout, self.steps))


def check_same_settings(file: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of a new folder, or compare them with those of an old one.

    Args:
        file: JSON file with the settings.
        settings: Settings that must be the same in each run on this folder.

    Raises:
        ConfigError: The folder was made with other settings.
    """
    if not file.exists():
        write_jsonl(file, [settings])
        return
    before = next(read_jsonl(file), {})
    now = json.loads(json.dumps(settings))
    if changed := [key for key in now if before.get(key) != now[key]]:
        raise ConfigError(
            f"{file.parent}: made with another {' and '.join(changed)} ({file.name} has the values); "
            "use the same, choose another --out, or remove that folder"
        )


def _rows(file: Path, fields: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the lines of a file; raise DataError for a line without one of the fields."""
    for row in read_jsonl(file, ignore_torn_tail=True) if file.exists() else ():
        if missing := [field for field in fields if field not in row]:
            raise DataError(f"{file}: a line without {', '.join(missing)}; remove that line, or the folder")
        yield row
