"""The work folder of `fapo critic`: every rollout and every vote, written as it arrives, read back on the next run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fapo.data.jsonl import read_jsonl, write_jsonl
from fapo.data.steps import split_steps
from fapo.errors import ConfigError, DataError
from fapo.judge.verdicts import verdict_from_row, verdict_row
from fapo.rewards.verify import Check
from fapo.types import Problem, Rollout, Verdict

SAMPLE_FIELDS = ("id", "problem", "reference", "response", "num_tokens", "correct", "outcome")
VOTE_FIELDS = ("id", "vote", "status", "error_step")


@dataclass(frozen=True)
class Place:
    """One rollout that is wanted."""

    problem: Problem
    """What is asked."""
    policy: str
    """Name of the model that is asked."""


@dataclass(frozen=True)
class Sample:
    """A rollout with a right final answer."""

    id: str
    """Its place in the plan."""
    policy: str
    """Name of the model that wrote it."""
    rollout: Rollout
    """What it wrote."""

    @property
    def steps(self) -> tuple[str, ...]:
        """The solution as a judge is shown it, without the blanks around its steps."""
        return tuple(step.strip() for step in split_steps(self.rollout.response))


class Work:
    """What of a plan is done. The plan gives each wanted rollout an id; its order is the order of everything else.

    samples.jsonl holds a line for each rollout, labels.jsonl one for each vote. What failed has no line: it is asked
    again. Lines that the plan does not name (the limit was larger before) are left alone.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], plan: Mapping[str, Place]) -> None:
        """Open or create the folder. Raises ConfigError for other settings, DataError for other problems."""
        self.folder, self.plan = folder, plan
        self.outcomes: dict[str, str] = {}
        """Id of each rollout that is there -> right, wrong, or the status of a `Check` that could not tell."""
        self.votes: dict[tuple[str, int], Verdict] = {}
        """(id, number of the vote) -> verdict, without the critique."""
        self._right: dict[str, Sample] = {}
        keep_settings(folder / "settings.json", settings)
        for row in _rows(folder / "samples.jsonl", SAMPLE_FIELDS):
            if row["id"] in plan:
                self._remember(row)
        for row in _rows(folder / "labels.jsonl", VOTE_FIELDS):
            verdict = verdict_from_row(row)
            assert verdict, "a vote is never skipped"
            self.votes.setdefault((row["id"], row["vote"]), replace(verdict, critique=""))

    def distinct(self) -> list[Sample]:
        """The rollouts with a right answer, in order; of equal solutions of equal problems the first."""
        first: dict[tuple[str, tuple[str, ...]], Sample] = {}
        for key in self.plan:
            if sample := self._right.get(key):
                first.setdefault((sample.rollout.problem.text, sample.steps), sample)
        return list(first.values())

    def add_samples(self, samples: Sequence[tuple[str, Rollout, Check]]) -> None:
        """Write rollouts down: (id, rollout, what came of its final answer)."""
        rows = [
            {
                "id": key,
                "problem_id": rollout.problem.id,
                "problem": rollout.problem.text,
                "reference": rollout.problem.reference,
                "policy": self.plan[key].policy,
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
        """Write votes down, with their critiques."""
        rows = [{"id": key, "vote": number, **verdict_row(verdict)} for (key, number), verdict in votes.items()]
        write_jsonl(self.folder / "labels.jsonl", rows, append=True)
        self.votes.update({place: replace(verdict, critique="") for place, verdict in votes.items()})

    def _remember(self, row: Mapping[str, Any]) -> None:
        place = self.plan[row["id"]]
        if (row["problem"], row["reference"]) != (place.problem.text, place.problem.reference):
            raise DataError(
                f"{self.folder}: problem {place.problem.id!r} was another one when it was sampled; "
                "choose another --out, or remove that folder"
            )
        self.outcomes[row["id"]] = row["outcome"]
        if row["correct"]:
            rollout = Rollout(place.problem, row["response"], row["num_tokens"])
            self._right.setdefault(row["id"], Sample(row["id"], place.policy, rollout))


def keep_settings(file: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of a new folder; of an old one, they must be the same."""
    if not file.exists():
        write_jsonl(file, [settings])
        return
    before = next(read_jsonl(file), {})
    now = json.loads(json.dumps(settings))
    if changed := [key for key in now if before.get(key) != now[key]]:
        raise ConfigError(
            f"{file.parent}: made with another {' and '.join(changed)} ({file.name} tells which); "
            "use the same, choose another --out, or remove that folder"
        )


def _rows(file: Path, fields: Sequence[str]) -> Iterator[dict[str, Any]]:
    for row in read_jsonl(file, ignore_torn_tail=True) if file.exists() else ():
        if missing := [field for field in fields if field not in row]:
            raise DataError(f"{file}: a line without {', '.join(missing)}; remove that line, or the folder")
        yield row
