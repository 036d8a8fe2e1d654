"""Labels made by hand, compared with the judge: FP ratios, agreement and Cohen's kappa (the paper's Table 6)."""

from __future__ import annotations

import logging
import math
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from fapo.errors import DataError
from fapo.evaluation.intervals import (
    decimal,
    group_sums,
    grouped_difference_interval,
    grouped_f1_interval,
    grouped_rate_interval,
    percent,
)
from fapo.judge.quality import PRF, confusion, flawed_positive_prf, ratio
from fapo.report.agreement import Agreement, Finding, agreement
from fapo.report.rollouts import ShownRollout, named_policies, shown_rollouts
from fapo.training.datasets import TRAIN
from fapo.training.run_reader import Run

_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True)
class Label:
    """Label of one rollout, made by a person."""

    __pydantic_config__ = _STRICT
    run: str
    """Name of the run."""
    split: str
    """train, or the name of a validation set."""
    step: int
    """Training step."""
    problem_id: str
    """Id of the problem."""
    sample: int
    """Index of the rollout among those of the problem at this step."""
    steps: tuple[Literal["fine", "flawed"], ...]
    """Label of each step up to the first flawed one, or of all steps if none is flawed."""
    error_step: int | None
    """Index of the first flawed step; None if all steps are fine."""
    text_hash: str = ""
    """Hash of the labelled text, see `text_hash`; empty in files of older pages."""

    @property
    def flawed(self) -> bool:
        """Whether a step is flawed."""
        return self.error_step is not None


@dataclass(frozen=True)
class Labels:
    """File of labels that the page exports."""

    __pydantic_config__ = _STRICT
    schema: Literal[1]
    """Version of the file format."""
    seed: int
    """Seed of the random choice of rollouts."""
    drawn: int
    """Number of rollouts that were chosen; those without a label are not in the file."""
    labels: tuple[Label, ...]
    """Labels, one for each labelled rollout."""
    balanced: bool = False
    """Whether as many flagged as cleared rollouts were chosen; False in files of older pages."""


BLOCKS = 4
"""Number of blocks into which the steps up to the last labelled one are divided, for the rates of a judge over time."""
_REMEDY = "give the run folders that the labels were made from"


@dataclass(frozen=True)
class JudgeRates:
    """Rates of a judge on rollouts that a person has labelled."""

    run: str
    """Name of the run."""
    steps: tuple[int, int]
    """First and last step of the block."""
    flagged: tuple[bool, ...]
    """Whether the judge has flagged each rollout, [num_rollouts]."""
    flawed: tuple[bool, ...]
    """Whether the person has found a flaw in it, [num_rollouts]."""
    problems: tuple[str, ...]
    """Text of its problem, [num_rollouts]; rollouts of one problem are not independent."""

    @property
    def found(self) -> PRF:
        """Counts of the judge, with the person as the truth."""
        return flawed_positive_prf(self.flagged, self.flawed)

    def row(self) -> tuple[str, ...]:
        """Return run, steps, number, recall, false positive rate, J and F1 as text, with intervals of 95 %.

        The intervals are those of Wilson, of Newcombe for J, and of `f1_interval`; over problems where these have
        several rollouts.
        """
        found = self.found
        rows = [
            (*confusion(flagged, flawed), flawed, not flawed)
            for flagged, flawed in zip(self.flagged, self.flawed, strict=True)
        ]
        tp, fp, fn, num_flawed, num_fine = group_sums(rows, self.problems).T
        return (
            self.run,
            f"{self.steps[0]}-{self.steps[1]}",
            str(found.n),
            percent(found.recall, grouped_rate_interval(tp, num_flawed)),
            percent(ratio(found.fp, found.fp + found.tn), grouped_rate_interval(fp, num_fine)),
            decimal(found.youden_j, grouped_difference_interval(tp, num_flawed, fp, num_fine)),
            decimal(found.f1, grouped_f1_interval(tp, fp, fn)),
        )


def read_labels(path: str | Path) -> Labels:
    """Read a file of labels that a page exported. Raise DataError for any other file."""
    path = Path(path)
    try:
        labels = TypeAdapter(Labels).validate_json(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; export labels from the page of `fapo report`") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise DataError(f"{path}: {where}: {first['msg']}; give a file exported from the page") from None
    for i, label in enumerate(labels.labels):
        first_flawed = label.steps.index("flawed") if "flawed" in label.steps else None
        if label.error_step != first_flawed:
            raise DataError(
                f"{path}: labels.{i}: error_step {label.error_step}, but the steps say {first_flawed}; "
                "export the labels again"
            )
    return labels


def agreements(path: str | Path, runs: Sequence[Run]) -> list[Agreement]:
    """Compare labels made by hand with the verdicts of the same rollouts.

    Args:
        path: File of labels that a page exported.
        runs: Runs that the page showed.

    Returns:
        For each run with labels, the agreement with its judge and with the oracle, if they gave verdicts.

    Raises:
        DataError: If the file cannot be read, or a labelled rollout is in none of the runs.
    """
    found = read_labels(path)
    return compare_labels(path, found, _rollouts(found.labels, runs), _REMEDY)


def judge_rates(path: str | Path, runs: Sequence[Run]) -> list[JudgeRates]:
    """Return the rates of the judge of each run by labels made by hand, for blocks of steps and for all steps.

    Args:
        path: File of labels that a page exported; labels of validations do not count.
        runs: Runs that the page showed.

    Returns:
        Rates of the blocks with labelled rollouts that have a verdict, and then of all of these rollouts of the run.
        Empty for as many flagged as cleared rollouts: too few of them are cleared, so that too few errors are missed.

    Raises:
        DataError: If the file cannot be read, or a labelled rollout is in none of the runs.
    """
    read = read_labels(path)
    if read.balanced:
        logging.getLogger("fapo").warning(
            "%s: as many flagged as cleared rollouts were drawn, so that recall, false positive rate, J and F1 are not "
            "those of all right answers; draw from all right answers to measure them", path,
        )  # fmt: skip
        return []
    labels = [label for label in read.labels if label.split == TRAIN]
    pairs = _pairs(path, labels, _rollouts(labels, runs), _REMEDY)
    rows = []
    for name in dict.fromkeys(rollout.run for _, rollout in pairs):
        mine = [(label, r) for label, r in pairs if r.run == name and r.status == "ok"]
        size = math.ceil(max((label.step for label, _ in mine), default=0) / BLOCKS)
        blocks = [(size * i + 1, size * (i + 1)) for i in range(BLOCKS)] if size else []
        for first, last in [*blocks, (1, size * BLOCKS)]:
            found = [(label, r) for label, r in mine if first <= label.step <= last]
            if found:
                by_judge = [bool(r.flagged) for _, r in found]
                by_hand, problems = [label.flawed for label, _ in found], [r.problem for _, r in found]
                rows.append(JudgeRates(name, (first, last), tuple(by_judge), tuple(by_hand), tuple(problems)))
    return rows


def _rollouts(labels: Sequence[Label], runs: Sequence[Run]) -> Iterator[ShownRollout]:
    """Yield the rollouts of the runs that have labels."""
    labelled = {label.run for label in labels}
    for name, run in named_policies(runs).items():
        if name in labelled:
            yield from shown_rollouts(name, run)


def compare_labels(path: str | Path, labels: Labels, rollouts: Iterable[ShownRollout], remedy: str) -> list[Agreement]:
    """Compare labels made by hand with the verdicts on the same rollouts.

    Args:
        path: File of the labels, for messages.
        labels: Labels made by hand.
        rollouts: Rollouts among which the labelled ones are.
        remedy: What to do if a labelled rollout is missing, for messages.

    Returns:
        For each run with labels, the agreement with its judge and with the oracle, if they gave verdicts.

    Raises:
        DataError: If a labelled rollout is missing.
    """
    found = _pairs(path, labels.labels, rollouts, remedy)
    chosen = ", as many flagged as cleared" if labels.balanced else ""
    rows = []
    for name in dict.fromkeys(rollout.run for _, rollout in found):
        mine = [(label, rollout) for label, rollout in found if rollout.run == name]
        judged: list[tuple[str, tuple[Finding, Finding]]] = []
        known: list[tuple[str, tuple[Finding, Finding]]] = []
        for label, rollout in mine:
            by_hand = (label.flawed, label.error_step)
            if rollout.status == "ok":
                judged.append((rollout.problem, ((bool(rollout.flagged), rollout.judged), by_hand)))
            if rollout.known:
                known.append((rollout.problem, ((rollout.true is not None, rollout.true), by_hand)))
        for other, found_by_other in (("judge", judged), ("oracle", known)):
            if found_by_other:
                problems, pairs = zip(*found_by_other, strict=True)
                rows.append(agreement(f"{other}, {name}{chosen}", pairs, problems, len(mine) - len(pairs)))
    return rows


def _pairs(
    path: str | Path, labels: Sequence[Label], rollouts: Iterable[ShownRollout], remedy: str
) -> list[tuple[Label, ShownRollout]]:
    """Return each labelled rollout with its label, in the order of the rollouts. Raise DataError if one is missing."""
    wanted = {(k.run, k.split, k.step, k.problem_id, k.sample): k for k in labels}
    found = [(wanted[rollout.key], rollout) for rollout in rollouts if rollout.key in wanted]
    if missing := set(wanted) - {rollout.key for _, rollout in found}:
        raise DataError(f"{path}: no {_named(min(missing))}; {remedy}")
    changed = [rollout for label, rollout in found if label.text_hash not in ("", text_hash(rollout.steps))]
    if changed:
        logging.getLogger("fapo").warning(
            "%s: %d of %d labels do not count: the rollouts have other texts than those that were labelled, as after a "
            "run was resumed from an earlier step. The first is about %s",
            path, len(changed), len(found), _named(changed[0].key),
        )  # fmt: skip
    left_out = {rollout.key for rollout in changed}
    return [(label, rollout) for label, rollout in found if rollout.key not in left_out]


def text_hash(steps: Sequence[str]) -> str:
    """Return the FNV-1a hash (32 bits) of the steps in UTF-16 without blanks, as the page computes it."""
    value = 0x811C9DC5
    for (unit,) in struct.iter_unpack("<H", re.sub("[ \t\r\n]", "", "".join(steps)).encode("utf-16-le")):
        value = (value ^ unit) * 0x01000193 & 0xFFFFFFFF
    return f"{value:08x}"


def _named(key: tuple[str, str, int, str, int]) -> str:
    """Return the key of a rollout as text."""
    run, split, step, problem, sample = key
    return f"rollout {sample} of {problem} ({split}, step {step}) in run {run}"
