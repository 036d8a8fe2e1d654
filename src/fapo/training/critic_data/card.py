"""Card of critic data: how it was made, how many rollouts reached each stage, how precise the labels are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fapo.data.files import write_json, write_text
from fapo.data.jsonl import finite
from fapo.data.provenance import environment
from fapo.evaluation.intervals import percent
from fapo.training.critic_data.consensus import LabelPrecision

SCHEMA = 1
"""Version of the card in JSON."""


@dataclass(frozen=True)
class Counts:
    """Number of rollouts at each stage."""

    problems: int
    """Number of problems."""
    sampled: int
    """Number of rollouts of all policies."""
    not_sampled: int
    """Number of failed requests for a rollout."""
    undecided: int
    """Number of rollouts with a final answer that could not be compared with the reference in time."""
    correct: int
    """Number of rollouts with a correct final answer."""
    distinct: int
    """Number of distinct correct rollouts; the teacher judges these."""
    judged: int
    """Number of distinct correct rollouts with all votes."""
    failed_votes: int
    """Number of failed votes; the next run requests them again."""
    unparsable_votes: int
    """Number of votes without a valid index; they agree with no other vote."""
    consensus: int
    """Number of solutions with a consensus: all votes name the same first wrong step, or none."""
    consensus_flawed: int
    """Number of solutions with a consensus that are flawed."""
    kept: int
    """Number of solutions in the data file."""
    kept_flawed: int
    """Number of solutions in the data file that are flawed."""


@dataclass(frozen=True)
class Card:
    """Origin and quality of a data file."""

    file: str
    """Name of the data file."""
    counts: Counts
    """Number of rollouts at each stage."""
    unanimous: float
    """Rate of judged solutions with a consensus; NaN without judged solutions."""
    pairwise_agreement: float
    """Rate of agreement in all pairs of votes on one solution; NaN for one vote."""
    by_policy: Mapping[str, Mapping[str, int]]
    """Number of rollouts of each policy: sampled, correct and kept."""
    label_precision: Mapping[str, LabelPrecision]
    """Precision of one vote, of the consensus and of the kept labels; empty where the truth is unknown."""
    settings: Mapping[str, Any]
    """Settings that the data depends on."""
    prompts: Mapping[str, str]
    """Prompts of the policies and of the teacher."""


def write_card(out: Path, card: Card) -> Card:
    """Write the card beside the data file, as .card.json and as .card.md.

    Args:
        out: Data file.
        card: Card to write.

    Returns:
        The same card.
    """
    record = {"schema": SCHEMA, **asdict(card), "environment": environment()}
    digests = {name: hashlib.sha256(text.encode("utf-8", "replace")).hexdigest() for name, text in card.prompts.items()}
    write_json(out.with_suffix(".card.json"), finite({**record, "prompt_sha256": digests}))
    versions = ", ".join(f"{name} {version}" for name, version in record["environment"]["versions"].items())
    write_text(out.with_suffix(".card.md"), f"{_markdown(card)}\nMade with {versions}.\n")
    return card


def summary(card: Card) -> list[str]:
    """Return the numbers of a card as lines of Markdown."""
    c = card.counts
    lines = [
        "| stage | rollouts | |",
        "|---|---|---|",
        f"| sampled | {c.sampled} | for {c.problems} problems; {c.not_sampled} requests failed |",
        f"| correct final answer | {c.correct} | {c.undecided} could not be compared |",
        f"| distinct | {c.distinct} | |",
        f"| judged by all votes | {c.judged} | {c.failed_votes} votes failed, {c.unparsable_votes} unparsable |",
        f"| consensus | {c.consensus} | {c.consensus_flawed} flawed |",
        f"| kept | {c.kept} | {c.kept_flawed} flawed |",
        "",
        f"Agreement: all votes on {percent(card.unanimous)} of the solutions judged, "
        f"{percent(card.pairwise_agreement)} of the pairs of votes.",
    ]
    if card.label_precision:
        lines += ["", "Labels that are true by the oracle, all and by kind:", ""]
        lines += ["| labels | n | true | flawed, at a step | correct |", "|---|---|---|---|---|"]
        for name, p in card.label_precision.items():
            rates = " | ".join(percent(rate) for rate in (p.precision, p.flawed, p.correct))
            lines.append(f"| {name} | {p.n} | {rates} |")
    return lines


def _markdown(card: Card) -> str:
    """Return the card as a page."""
    lines = [f"# {card.file}", "", "Solutions with a correct final answer, labelled with their first wrong step.", ""]
    lines += [*summary(card), "", "## Policies", "", "| policy | sampled | correct | kept |", "|---|---|---|---|"]
    lines += [f"| {name} | {n['sampled']} | {n['correct']} | {n['kept']} |" for name, n in card.by_policy.items()]
    lines += ["", "## Settings", "", "| setting | value |", "|---|---|"]
    lines += [f"| {name} | {json.dumps(value)} |" for name, value in card.settings.items()]
    for name, text in card.prompts.items():
        lines += ["", f"## Prompt of the {name}", "", *(f"    {line}" for line in text.split("\n"))]
    return "\n".join([*lines, ""])
