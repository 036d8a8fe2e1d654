"""Labels made by hand, compared with the judge: FP ratios, agreement and Cohen's kappa (the paper's Table 6)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from fapo.errors import DataError
from fapo.report.agreement import Agreement, Finding, agreement
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
    labels = read_labels(path).labels
    labelled = {label.run for label in labels}
    shown = (
        rollout
        for name, run in named_policies(runs).items()
        if name in labelled
        for rollout in shown_rollouts(name, run)
    )
    return compare_labels(path, labels, shown, "give the run folders that the labels were made from")


def compare_labels(
    path: str | Path, labels: Sequence[Label], rollouts: Iterable[ShownRollout], remedy: str
) -> list[Agreement]:
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
    wanted = {(k.run, k.split, k.step, k.problem_id, k.sample): k for k in labels}
    found = [(wanted[rollout.key], rollout) for rollout in rollouts if rollout.key in wanted]
    if missing := set(wanted) - {rollout.key for _, rollout in found}:
        name, split, step, problem, sample = min(missing)
        raise DataError(f"{path}: no rollout {sample} of {problem} ({split}, step {step}) in run {name}; {remedy}")
    rows = []
    for name in dict.fromkeys(rollout.run for _, rollout in found):
        mine = [(label, rollout) for label, rollout in found if rollout.run == name]
        judged: list[tuple[Finding, Finding]] = []
        known: list[tuple[Finding, Finding]] = []
        for label, rollout in mine:
            by_hand = (label.error_step is not None, label.error_step)
            if rollout.status == "ok":
                judged.append(((bool(rollout.flagged), rollout.judged), by_hand))
            if rollout.known:
                known.append(((rollout.true is not None, rollout.true), by_hand))
        for other, pairs in (("judge", judged), ("oracle", known)):
            rows += [agreement(f"{other}, {name}", pairs, len(mine) - len(pairs))] if pairs else []
    return rows
