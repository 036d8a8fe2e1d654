"""Headline numbers of the page, each with a sentence that explains it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fapo.report.run_labels import group_runs
from fapo.report.summary import Row, find_crossing, predicted_rho, set_title, show
from fapo.training.run_reader import Run

_SENTENCES = {
    "accuracy": "of the answers of {label} are correct on {split} problems",
    "true_fp_ratio": "of the correct answers of {label} hide a wrong step",
    "fp_ratio": "of the correct answers of {label} are flawed by the judge",
    "f1": "F1 of the judge ({label}) on flawed positives",
}


@dataclass(frozen=True)
class Tile:
    """One headline number."""

    number: str
    """The number, with its unit."""
    sentence: str
    """Explanation of the number."""


def tiles(runs: Sequence[Run], rows: Sequence[Row]) -> list[Tile]:
    """Return the headline numbers; those that were not measured are left out.

    Args:
        runs: Runs of policies and of judges.
        rows: Their summary.

    Returns:
        Accuracy on up to two sets, flawed positives, rho where they turn negative, and F1 of the judge.
    """
    names = {row.metric.name for row in rows}
    ratio = "true_fp_ratio" if "true_fp_ratio" in names else "fp_ratio"
    shown = []
    for name, num_sets in (("accuracy", 2), (ratio, 1)):
        splits = list(dict.fromkeys(row.split for row in rows if row.metric.name == name))[:num_sets]
        shown += [_tile([row for row in rows if row.metric.name == name and row.split == split]) for split in splits]
    shown += _crossing_tiles(runs)
    judges = [row for row in rows if row.metric.name == "f1"]
    shown += [_tile([row for row in judges if row.split == judges[0].split])] if judges else []
    return shown


def _tile(rows: Sequence[Row]) -> Tile:
    """Return the end of FAPO's row, or else of the first one, compared with the other rows."""
    main = next((row for row in rows if row.label.startswith("FAPO")), rows[0])
    sentence = _SENTENCES[main.metric.name].format(label=main.label, split=set_title(main.split))
    before = f"{show(main.start, main.metric.unit)} before training"
    others = [f"{row.label} ends at {show(row.end, row.metric.unit)}" for row in rows if row is not main]
    return Tile(show(main.end, main.metric.unit), f"{sentence}; {', '.join([before, *others])}.")


def _crossing_tiles(runs: Sequence[Run]) -> list[Tile]:
    """Return a tile about where flawed positives turn negative, for the first label that knows rho there."""
    for label, group in group_runs([run for run in runs if run.penalty]).items():
        found = [crossing for run in group if (crossing := find_crossing(run))]
        known = [(crossing.own_rho, crossing.step) for crossing in found if crossing.own_rho is not None]
        if not known:
            continue
        rho, step = (sum(column) / len(known) for column in zip(*known, strict=True))
        theory = predicted_rho(group[0])
        prediction = "" if theory is None else f"; theory predicts {theory:.2f}"
        when = f"where there are flawed positives, when their mean advantage turns negative ({label}, step {step:.0f})"
        return [Tile(f"rho = {rho:.2f}", f"{when}{prediction}.")]
    return []
