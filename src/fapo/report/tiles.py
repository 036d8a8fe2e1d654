"""The headline: a few numbers, each with the sentence that says what it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fapo.report.labels import grouped
from fapo.report.summary import Row, find_crossing, set_title, show
from fapo.rewards.theory import shift_ratio
from fapo.training.run_reader import Run

_SENTENCES = {
    "accuracy": "of the answers of {label} are right on {split} problems",
    "true_fp_ratio": "of the right answers of {label} hide a wrong step",
    "fp_ratio": "of the right answers of {label} are flawed, says the judge",
    "f1": "F1 of the judge ({label}) on flawed positives",
}


@dataclass(frozen=True)
class Tile:
    """One headline number."""

    number: str
    """The number, with its unit."""
    sentence: str
    """What it means."""


def tiles(runs: Sequence[Run], rows: Sequence[Row]) -> list[Tile]:
    """Accuracy on each set, flawed positives, the moment they turn negative, the judge; what is known of it."""
    names = {row.metric.name for row in rows}
    ratio = "true_fp_ratio" if "true_fp_ratio" in names else "fp_ratio"
    shown = []
    for name, num_sets in (("accuracy", 2), (ratio, 1)):
        splits = list(dict.fromkeys(row.split for row in rows if row.metric.name == name))[:num_sets]
        shown += [_tile([row for row in rows if row.metric.name == name and row.split == split]) for split in splits]
    shown += _moments(runs)
    judges = [row for row in rows if row.metric.name == "f1"]
    shown += [_tile([row for row in judges if row.split == judges[0].split])] if judges else []
    return shown


def _tile(rows: Sequence[Row]) -> Tile:
    hero = next((row for row in rows if row.label.startswith("FAPO")), rows[0])
    sentence = _SENTENCES[hero.metric.name].format(label=hero.label, split=set_title(hero.split))
    before = f"{show(hero.start, hero.metric)} before training"
    others = [f"{row.label} ends at {show(row.end, row.metric)}" for row in rows if row is not hero]
    return Tile(show(hero.end, hero.metric), f"{sentence}; {', '.join([before, *others])}.")


def _moments(runs: Sequence[Run]) -> list[Tile]:
    for label, group in grouped([run for run in runs if run.penalty]).items():
        found = [crossing for run in group if (crossing := find_crossing(run))]
        known = [(crossing.own_rho, crossing.step) for crossing in found if crossing.own_rho is not None]
        if not known:
            continue
        rho, step = (sum(column) / len(known) for column in zip(*known, strict=True))
        theory = shift_ratio(group[0].penalty or 1.0)
        when = f"where there are flawed positives, when their mean advantage turns negative ({label}, step {step:.0f})"
        return [Tile(f"rho = {rho:.2f}", f"{when}; theory says {theory:.2f}.")]
    return []
