"""Labels made by hand, held against the judge: FP ratio by either, agreement, Cohen's kappa (the paper's Table 6)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from fapo.errors import DataError
from fapo.evaluation.intervals import Interval, wilson_interval
from fapo.evaluation.metrics import fp_ratio
from fapo.judge.quality import cohen_kappa
from fapo.report.rollouts import Card, by_name, cards
from fapo.training.run_reader import Run

_STRICT = ConfigDict(extra="forbid", strict=True)


@dataclass(frozen=True)
class Label:
    """What a reader said about one rollout."""

    __pydantic_config__ = _STRICT
    run: str
    """Name of its run."""
    split: str
    """train, or the name of a validation set."""
    step: int
    """Step of training."""
    problem_id: str
    """Which question."""
    sample: int
    """Which of the answers to it at this step."""
    steps: tuple[Literal["fine", "flawed"], ...]
    """A label for each step up to the first flawed one, or for all."""
    error_step: int | None
    """The first flawed one; None: all are fine."""


@dataclass(frozen=True)
class Labels:
    """What the page exports."""

    __pydantic_config__ = _STRICT
    schema: Literal[1]
    """Version of the file."""
    seed: int
    """Seed of the draw."""
    drawn: int
    """Rollouts that were drawn; those without a label are not in the file."""
    labels: tuple[Label, ...]
    """One for each labelled rollout."""


@dataclass(frozen=True)
class Agreement:
    """Judge and human, or oracle and human, on the same rollouts of a run."""

    run: str
    """Name of the run."""
    other: Literal["judge", "oracle"]
    """Who is held against the human."""
    num: int
    """Rollouts that have both labels."""
    num_silent: int
    """Labelled rollouts without a verdict; they are not counted."""
    num_flawed: int
    """Flawed for the judge (oracle)."""
    num_flawed_human: int
    """Flawed by hand."""
    num_agreed: int
    """Both say flawed, or both say fine."""
    num_located: tuple[int, int]
    """Counts of rollouts with a step from both: those with the same step, all."""
    kappa: float
    """Cohen's kappa of flawed or not; NaN where both say the same of all."""

    @property
    def ratios(self) -> tuple[float, float]:
        """FP ratio by the judge (oracle) and by hand."""
        return fp_ratio(self.num_flawed, self.num), fp_ratio(self.num_flawed_human, self.num)

    @property
    def intervals(self) -> tuple[Interval, Interval, Interval]:
        """95 % intervals of the two FP ratios and of the agreement."""
        by, by_hand, same = (
            wilson_interval(k, self.num) for k in (self.num_flawed, self.num_flawed_human, self.num_agreed)
        )
        return by, by_hand, same


def read_labels(path: str | Path) -> Labels:
    """Read what a page exported. Raises DataError for anything else."""
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
            raise DataError(f"{path}: labels.{i}: error_step {label.error_step}, but the steps say {first_flawed}")
    return labels


def agreements(path: str | Path, runs: Sequence[Run]) -> list[Agreement]:
    """Read the labels, find their rollouts in the runs, count. Raises DataError for labels of other rollouts."""
    wanted = {(k.run, k.split, k.step, k.problem_id, k.sample): k for k in read_labels(path).labels}
    found: list[tuple[Label, Card]] = []
    for name, run in by_name(runs).items():
        if any(key[0] == name for key in wanted):
            found += [(wanted[card.key], card) for card in cards(name, run) if card.key in wanted]
    if missing := set(wanted) - {card.key for _, card in found}:
        name, split, step, problem, sample = min(missing)
        raise DataError(
            f"{path}: no rollout {sample} of {problem} ({split}, step {step}) in run {name}; "
            "give the run folders that the labels were made from"
        )
    rows = []
    for name in dict.fromkeys(card.run for _, card in found):
        mine = [(label, card) for label, card in found if card.run == name]
        judged = [(label.error_step, bool(card.flagged), card.judged) for label, card in mine if card.status == "ok"]
        known = [(label.error_step, card.true is not None, card.true) for label, card in mine if card.known]
        rows += [_compare(name, "judge", judged, len(mine))] if judged else []
        rows += [_compare(name, "oracle", known, len(mine))] if known else []
    return rows


def _compare(
    run: str, other: Literal["judge", "oracle"], rows: Sequence[tuple[int | None, bool, int | None]], num_labelled: int
) -> Agreement:
    """Compare rows of (step by hand, flagged by the other, step by the other)."""
    by_hand, theirs = [step is not None for step, _, _ in rows], [flagged for _, flagged, _ in rows]
    both = [(mine, other_step) for mine, _, other_step in rows if mine is not None and other_step is not None]
    return Agreement(
        run,
        other,
        len(rows),
        num_labelled - len(rows),
        sum(theirs),
        sum(by_hand),
        sum(a == b for a, b in zip(by_hand, theirs, strict=True)),
        (sum(a == b for a, b in both), len(both)),
        cohen_kappa(by_hand, theirs),
    )
