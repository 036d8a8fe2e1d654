"""Rollouts of several runs, prepared for the browser of a page: classified, split into steps, compressed."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from fapo.data.jsonl import finite_number
from fapo.data.steps import split_steps
from fapo.data.trajectory import judged_steps, make_rollout
from fapo.errors import ConfigError, DataError
from fapo.judge.template import load_template, parse_template
from fapo.report.text import visible
from fapo.training.datasets import TRAIN
from fapo.training.run_reader import Run
from fapo.types import Given, Problem, RolloutClass, StepRule, rollout_class

LIMIT = 100_000
"""Default limit of the number of rollouts on a page."""
MAX_BYTES = 64_000_000
"""Limit of the size of these rollouts in the run folders, in bytes."""
_MAX_CHARACTERS = 50_000
"""Length at which a response or a critique is cut, in characters."""


@dataclass(frozen=True)
class ShownRollout:
    """One rollout as the page shows it. All text is plain text with escape sequences for invisible characters."""

    run: str
    """Name of the run."""
    split: str
    """train, or the name of a validation set."""
    step: int
    """Training step; -1 if unknown."""
    problem_id: str
    """Id of the problem."""
    sample: int
    """Index of the rollout among those of the problem at this step."""
    problem: str
    """Text of the problem."""
    reference: str
    """Reference answer."""
    steps: tuple[str, ...]
    """Steps of the solution, split as for the judge."""
    kind: RolloutClass
    """Class of the rollout by the judge, or by the oracle if there was no judge; unscored means no verdict."""
    status: str
    """Status of the verdict: ok, unparsable, failed or skipped."""
    flagged: bool | None
    """Whether the judge found a wrong step; None without a verdict."""
    judged: int | None
    """Index of the first wrong step by the judge; None if the judge named none."""
    critique: str
    """Text that the judge wrote."""
    known: bool
    """Whether an oracle checked the rollout."""
    true: int | None
    """Index of the first wrong step by the oracle; None if there is none."""
    flaw: str
    """Kind of the error by the oracle."""
    reward: float | None
    """Reward; None if unscored."""
    advantage: float | None
    """Advantage within the group; None outside training."""
    num_tokens: int
    """Length of the response in tokens; 0 if unknown."""
    correct: bool
    """Whether the final answer is correct."""
    error_kind: str = ""
    """Kind of the error that the critique names; empty where it was not sought."""
    second: bool | None = None
    """Whether a second judge found a wrong step; None without its verdict."""
    second_step: int | None = None
    """Index of the first wrong step by the second judge; None if it named none."""
    audited: bool = False
    """Whether the audit of the run has drawn it for a person."""

    @property
    def key(self) -> tuple[str, str, int, str, int]:
        """Key of the rollout among all rollouts: run, set, step, problem and sample."""
        return self.run, self.split, self.step, self.problem_id, self.sample


def named_policies(runs: Sequence[Run]) -> dict[str, Run]:
    """Return name -> policy run, by which a page names it; runs that share a name are named by their folders."""
    policies = [run for run in runs if not run.genrm]
    counts = Counter(run.name for run in policies)
    return {run.name if counts[run.name] == 1 else str(run.path): run for run in policies}


def shown_rollouts(name: str, run: Run, rate: float = 1.0) -> Iterator[ShownRollout]:
    """Yield the rollouts of a run, or a random choice that is the same each time.

    Args:
        name: Name of the run on the page.
        run: The run.
        rate: Fraction of groups that are chosen. All rollouts of a problem at a step stay together. Those that an audit
            has drawn for a person are always chosen.

    Yields:
        Rollouts in the order written.
    """
    seen: Counter[tuple[Any, ...]] = Counter()
    rule, drawn = _step_rule(run), run.drawn_for_a_person()
    for row in run.rollouts():
        if not isinstance(row.get("response"), str) or not isinstance(row.get("correct"), bool):
            continue
        group = (str(row.get("split", "")), _int(row.get("step"), -1), visible(row.get("problem_id"), 200))
        sample = seen[group]
        seen[group] += 1
        key = group[1], str(row.get("problem_id")), row["response"]
        audited = group[0] == TRAIN and drawn[key] > 0
        if audited:
            drawn[key] -= 1  # for all others this would keep their texts in memory
        if audited or rate >= 1 or zlib.crc32(repr(group).encode()) < rate * 2**32:
            yield replace(_shown_rollout(row, name, group, sample, rule), audited=audited)


def _step_rule(run: Run) -> StepRule:
    """Return the rule by which the judge of a run split responses; paragraphs if it is not known any more."""
    judge, key = run.table("judge"), "judge.template"
    for part in ("cheap", "strong"):  # the judges of a cascade have one rule; one of them may have no template
        if f"judge.{part}.template" in run.prompts and isinstance(judge.get(part), Mapping):
            judge, key = judge[part], f"judge.{part}.template"
    text = run.prompts.get(key)
    try:
        if isinstance(text, str):
            return parse_template(text, key, judge.get("steps")).steps
        return load_template(str(judge.get("template", "locate")), judge.get("steps")).steps
    except ConfigError:
        return "paragraphs"


def _shown_rollout(
    row: Mapping[str, Any], run: str, group: tuple[str, int, str], sample: int, rule: StepRule
) -> ShownRollout:
    """Return one row of rollouts.jsonl as the page shows it; any value except response and correct may be missing."""
    truth = row.get("truth") if isinstance(row.get("truth"), Mapping) else None
    true, flaw = (truth.get("error_step"), truth.get("flaw")) if truth is not None else (None, None)
    judged, reward = _index(row.get("error_step")), finite_number(row.get("reward"))
    found = row.get("flawed")
    flagged = found if isinstance(found, bool) else None
    flawed = true is not None if flagged is None else flagged  # without a verdict the oracle decides
    status = str(row.get("status", "skipped"))
    unscored = reward is None or status in ("unparsable", "failed")
    failed_check = not row["correct"] and row.get("reward", 0) is None  # a wrong answer has a reward
    return ShownRollout(
        run,
        *group,
        sample,
        visible(row.get("problem"), 4000),
        visible(row.get("reference"), 400),
        tuple(_steps(row, rule if truth is None else "lines")),  # lines: the steps of the oracle
        "unscored" if failed_check else rollout_class(row["correct"], None if unscored else flawed),
        status,
        flagged,
        judged,
        visible(row.get("critique") or "", _MAX_CHARACTERS),
        truth is not None,
        _index(true),
        visible(flaw or "", 80),
        reward,
        finite_number(row.get("advantage")),
        _int(row.get("num_tokens"), 0),
        row["correct"],
    )


def _steps(row: Mapping[str, Any], rule: StepRule) -> list[str]:
    """Return the steps in one row of rollouts.jsonl, split as for the judge; long text is cut."""
    with contextlib.suppress(DataError):  # raised where a row has no such column
        steps = judged_steps(make_rollout(Problem("", "", ""), row.get("trajectory")), rule)
        return list(shown_steps(steps))
    response = row["response"]
    shown = [visible(step.rstrip(), _MAX_CHARACTERS) for step in split_steps(response[:_MAX_CHARACTERS], rule)]
    if len(response) > _MAX_CHARACTERS:
        shown.append(f"… ({len(response) - _MAX_CHARACTERS:,} more characters)")
    return shown


def shown_steps(steps: Iterable[str | Given]) -> tuple[str, ...]:
    """Return steps as the page shows them: long ones are cut, and those that the policy did not write are marked."""
    texts = (f"[given] {step.text}" if isinstance(step, Given) else step for step in steps)
    return tuple(visible(text.rstrip(), _MAX_CHARACTERS) for text in texts)


def sampling_rate(rows: Sequence[Path], limit: int = LIMIT, others: Iterable[Path] = ()) -> float:
    """Choose the fraction of rollouts that a page shows.

    Args:
        rows: Files with one rollout a line.
        limit: Number of rollouts.
        others: Further files; their texts are shown, too.

    Returns:
        The fraction that keeps the page within `limit` rollouts and MAX_BYTES.
    """
    size, lines = sum(path.stat().st_size for path in (*rows, *others)), 0
    for path in rows:
        with path.open("rb") as file:
            lines += sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    return min(1.0, limit / max(lines, 1), MAX_BYTES / max(size, 1))


def pack(shown: Sequence[ShownRollout]) -> str:
    """Return rollouts as JSON columns in gzip in base64; this text is small and cannot be taken for HTML."""
    table: dict[str, Any] = {
        field.name: [getattr(rollout, field.name) for rollout in shown] for field in fields(ShownRollout)
    }
    for name in ("run", "split", "problem_id", "problem", "reference", "kind", "status", "flaw", "error_kind"):
        names = list(dict.fromkeys(table[name]))
        number = {text: i for i, text in enumerate(names)}
        table[name] = {"names": names, "rows": [number[text] for text in table[name]]}
    return packed_json(table)


def packed_json(value: Any) -> str:
    """Return a value of JSON types in gzip in base64."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _index(value: Any) -> int | None:
    """Return a value if it is the index of a step, otherwise None."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _int(value: Any, default: int) -> int:
    """Return a value if it is an integer, otherwise the default."""
    return value if isinstance(value, int) and not isinstance(value, bool) else default
