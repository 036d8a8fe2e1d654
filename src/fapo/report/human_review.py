"""Labels made by hand, compared with the judge: FP ratios, agreement and Cohen's kappa (the paper's Table 6)."""

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
from fapo.report.rollouts import ShownRollout, named_policies, shown_rollouts
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


@dataclass(frozen=True)
class Agreement:
    """Agreement of the labels made by hand with the judge, or with the oracle, on the same rollouts of a run."""

    run: str
    """Name of the run."""
    other: Literal["judge", "oracle"]
    """Source of the verdicts that are compared with the labels."""
    num: int
    """Number of rollouts that have a label and a verdict."""
    num_silent: int
    """Number of labelled rollouts without a verdict; no other count includes them."""
    num_flawed: int
    """Number of rollouts that are flawed by the judge or oracle."""
    num_flawed_human: int
    """Number of rollouts that are flawed by hand."""
    num_agreed: int
    """Number of rollouts on which both agree whether they are flawed."""
    num_located: tuple[int, int]
    """Number of rollouts with the same first wrong step from both, and number with any step from both."""
    kappa: float
    """Cohen's kappa of flawed or not; NaN if both put all rollouts into one class."""

    @property
    def ratios(self) -> tuple[float, float]:
        """FP ratio by the judge or oracle, and FP ratio by hand."""
        return fp_ratio(self.num_flawed, self.num), fp_ratio(self.num_flawed_human, self.num)

    @property
    def intervals(self) -> tuple[Interval, Interval, Interval]:
        """95 % intervals of the two FP ratios and of the agreement rate."""
        by, by_hand, same = (
            wilson_interval(k, self.num) for k in (self.num_flawed, self.num_flawed_human, self.num_agreed)
        )
        return by, by_hand, same


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
    wanted = {(k.run, k.split, k.step, k.problem_id, k.sample): k for k in read_labels(path).labels}
    found: list[tuple[Label, ShownRollout]] = []
    for name, run in named_policies(runs).items():
        if any(key[0] == name for key in wanted):
            found += [(wanted[rollout.key], rollout) for rollout in shown_rollouts(name, run) if rollout.key in wanted]
    if missing := set(wanted) - {rollout.key for _, rollout in found}:
        name, split, step, problem, sample = min(missing)
        raise DataError(
            f"{path}: no rollout {sample} of {problem} ({split}, step {step}) in run {name}; "
            "give the run folders that the labels were made from"
        )
    rows = []
    for name in dict.fromkeys(rollout.run for _, rollout in found):
        mine = [(label, rollout) for label, rollout in found if rollout.run == name]
        judged = [
            (label.error_step, bool(rollout.flagged), rollout.judged)
            for label, rollout in mine
            if rollout.status == "ok"
        ]
        known = [(label.error_step, rollout.true is not None, rollout.true) for label, rollout in mine if rollout.known]
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
