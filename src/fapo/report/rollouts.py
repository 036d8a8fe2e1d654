"""Rollouts of several runs, made ready to be read in a browser: classed, cut into steps, packed small."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from fapo.data.problems import finite_number
from fapo.data.steps import split_steps
from fapo.judge.genrm import named_step
from fapo.report.text import visible
from fapo.training.run_reader import Run
from fapo.types import RolloutClass, rollout_class

LIMIT = 100_000
"""Rollouts on a page, unless more or fewer are asked for."""
MAX_BYTES = 64_000_000
"""What they may take up in the run folders."""
_LONGEST = 50_000


@dataclass(frozen=True)
class Card:
    """One rollout as the page shows it. Text is plain text, with invisible characters written out."""

    run: str
    """Name of its run."""
    split: str
    """train, or the name of a validation set."""
    step: int
    """Step of training; -1 where unknown."""
    problem_id: str
    """Which question."""
    sample: int
    """Which of the answers to it at this step, from 0. With the four above it names the rollout."""
    problem: str
    """The question."""
    reference: str
    """The right answer."""
    steps: tuple[str, ...]
    """The solution, as the judge sees it."""
    kind: RolloutClass
    """fully_correct, flawed: by the judge, by the oracle where no judge was asked; unscored: no verdict."""
    status: str
    """Of the verdict: ok, unparsable, failed or skipped."""
    flagged: bool | None
    """Whether the judge found an error; None without a verdict."""
    judged: int | None
    """Index of the first wrong step by the judge; None where it named none."""
    critique: str
    """What the judge wrote."""
    known: bool
    """Whether an oracle knows the truth."""
    true: int | None
    """The first wrong step by the oracle."""
    flaw: str
    """What kind of error that is, by the oracle."""
    reward: float | None
    """None: unscored."""
    advantage: float | None
    """None: not in a group."""
    num_tokens: int
    """Length of the response; 0 where unknown."""
    correct: bool
    """Whether the final answer is right."""

    @property
    def key(self) -> tuple[str, str, int, str, int]:
        """What names it among all rollouts."""
        return self.run, self.split, self.step, self.problem_id, self.sample


def by_name(runs: Sequence[Run]) -> dict[str, Run]:
    """The policies by the name they go by on a page: their own, or the folder where two have the same."""
    policies = [run for run in runs if not run.genrm]
    times = Counter(run.name for run in policies)
    return {run.name if times[run.name] == 1 else str(run.path): run for run in policies}


def cards(name: str, run: Run, share: float = 1.0) -> Iterator[Card]:
    """The rollouts of a run, or a fixed random `share` of them; all answers to a question at a step stay together."""
    seen: Counter[tuple[Any, ...]] = Counter()
    for row in run.rollouts():
        if not isinstance(row.get("response"), str) or not isinstance(row.get("correct"), bool):
            continue
        group = (str(row.get("split", "")), _int(row.get("step"), -1), visible(row.get("problem_id"), 200))
        sample = seen[group]
        seen[group] += 1
        if share >= 1 or zlib.crc32(repr(group).encode()) < share * 2**32:
            yield _card(row, name, group, sample)


def _card(row: Mapping[str, Any], run: str, group: tuple[str, int, str], sample: int) -> Card:
    truth = row.get("truth") if isinstance(row.get("truth"), Mapping) else None
    true, flaw = (truth.get("error_step"), truth.get("flaw")) if truth is not None else (None, None)
    response, judged, reward = row["response"], _index(named_step(row)), finite_number(row.get("reward"))
    found = row.get("flawed")
    flagged = found if isinstance(found, bool) else None
    flawed = true is not None if flagged is None else flagged  # not asked: by the oracle, if there is one
    status = str(row.get("status", "skipped"))
    unscored = reward is None or status in ("unparsable", "failed")
    steps = [visible(step.rstrip(), _LONGEST) for step in split_steps(response[:_LONGEST])]
    if len(response) > _LONGEST:
        steps.append(f"… ({len(response) - _LONGEST:,} more characters)")
    return Card(
        run,
        *group,
        sample,
        visible(row.get("problem"), 4000),
        visible(row.get("reference"), 400),
        tuple(steps),
        rollout_class(row["correct"], None if unscored else flawed),
        status,
        flagged,
        judged,
        visible(row.get("critique") or "", _LONGEST),
        truth is not None,
        _index(true),
        visible(flaw or "", 80),
        reward,
        finite_number(row.get("advantage")),
        _int(row.get("num_tokens"), 0),
        row["correct"],
    )


def share_of(runs: Sequence[Run], limit: int = LIMIT) -> float:
    """The share of all rollouts that keeps a page within `limit` and MAX_BYTES."""
    files = [path for run in runs for path in run.rollout_files]
    size, lines = sum(path.stat().st_size for path in files), 0
    for path in files:
        with path.open("rb") as file:
            lines += sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    return min(1.0, limit / max(lines, 1), MAX_BYTES / max(size, 1))


def pack(shown: Sequence[Card]) -> str:
    """Cards as columns of JSON, gzip, base64: small, and nothing in it can be taken for HTML."""
    table: dict[str, Any] = {field.name: [getattr(card, field.name) for card in shown] for field in fields(Card)}
    for name in ("run", "split", "problem_id", "problem", "reference", "kind", "status", "flaw"):
        names = list(dict.fromkeys(table[name]))
        number = {text: i for i, text in enumerate(names)}
        table[name] = {"names": names, "rows": [number[text] for text in table[name]]}
    text = json.dumps(table, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _index(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _int(value: Any, default: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else default
