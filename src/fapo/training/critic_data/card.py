"""The card of a data set: how it was made, what became of the rollouts, what its labels are worth."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fapo.data.files import write_json
from fapo.data.jsonl import finite
from fapo.data.provenance import environment
from fapo.evaluation.intervals import percent
from fapo.training.critic_data.consensus import LabelPrecision

SCHEMA = 1
"""Version of the card."""


@dataclass(frozen=True)
class Counts:
    """Rollouts, by how far they came."""

    problems: int
    """Questions."""
    sampled: int
    """Rollouts of all policies."""
    not_sampled: int
    """Requests for a rollout that failed."""
    undecided: int
    """Rollouts whose final answer could not be compared with the reference in time."""
    correct: int
    """Rollouts with a right final answer."""
    distinct: int
    """Of these, without copies: what the teacher is shown."""
    judged: int
    """Of these, with all votes."""
    failed_votes: int
    """Votes that failed; the next run asks for them again."""
    unparsable_votes: int
    """Votes without a valid index; they agree with nothing."""
    consensus: int
    """Solutions on whose first wrong step, or on having none, all votes agree."""
    consensus_flawed: int
    """Of these, flawed."""
    kept: int
    """Solutions written."""
    kept_flawed: int
    """Of these, flawed."""


@dataclass(frozen=True)
class Card:
    """How a data set was made, and what is known about its quality."""

    file: str
    """Name of the data file."""
    counts: Counts
    """Rollouts at each stage."""
    unanimous: float
    """Consensus / judged; NaN when none was judged."""
    pairwise_agreement: float
    """Share of pairs of votes on one solution that agree; NaN for one vote."""
    by_policy: Mapping[str, Mapping[str, int]]
    """Policy -> its rollouts: sampled, correct, kept."""
    label_precision: Mapping[str, LabelPrecision]
    """Where the truth is known: labels (one vote, consensus, kept) -> how many are true; empty elsewhere."""
    settings: Mapping[str, Any]
    """All settings of the run."""
    prompts: Mapping[str, str]
    """The policies' and the teacher's prompt."""


def write_card(out: Path, card: Card) -> Card:
    """The card beside the data file: .card.json for programs, .card.md for people."""
    record = {"schema": SCHEMA, **asdict(card), "environment": environment()}
    digests = {name: hashlib.sha256(text.encode("utf-8", "replace")).hexdigest() for name, text in card.prompts.items()}
    write_json(out.with_suffix(".card.json"), finite({**record, "prompt_sha256": digests}))
    versions = ", ".join(f"{name} {version}" for name, version in record["environment"]["versions"].items())
    out.with_suffix(".card.md").write_text(f"{_markdown(card)}\nMade with {versions}.\n", "utf-8", "backslashreplace")
    return card


def summary(card: Card) -> list[str]:
    """The card's numbers as lines of Markdown."""
    c = card.counts
    lines = [
        "| stage | rollouts | |",
        "|---|---|---|",
        f"| sampled | {c.sampled} | for {c.problems} problems; {c.not_sampled} requests failed |",
        f"| right final answer | {c.correct} | {c.undecided} could not be compared |",
        f"| distinct | {c.distinct} | |",
        f"| judged by all votes | {c.judged} | {c.failed_votes} votes failed, {c.unparsable_votes} unparsable |",
        f"| consensus | {c.consensus} | {c.consensus_flawed} flawed |",
        f"| kept | {c.kept} | {c.kept_flawed} flawed |",
        "",
        f"Agreement: all votes on {percent(card.unanimous)} of the solutions judged, "
        f"{percent(card.pairwise_agreement)} of the pairs of votes.",
    ]
    if card.label_precision:
        lines += ["", "Labels that are true by the oracle, all and by what they say:", ""]
        lines += ["| labels | n | true | flawed, at a step | sound |", "|---|---|---|---|---|"]
        for name, p in card.label_precision.items():
            shares = " | ".join(percent(share) for share in (p.precision, p.flawed, p.sound))
            lines.append(f"| {name} | {p.n} | {shares} |")
    return lines


def _markdown(card: Card) -> str:
    lines = [f"# {card.file}", "", "Solutions with a right final answer, labelled with their first wrong step.", ""]
    lines += [*summary(card), "", "## Policies", "", "| policy | sampled | correct | kept |", "|---|---|---|---|"]
    lines += [f"| {name} | {n['sampled']} | {n['correct']} | {n['kept']} |" for name, n in card.by_policy.items()]
    lines += ["", "## Settings", "", "| setting | value |", "|---|---|"]
    lines += [f"| {name} | {json.dumps(value)} |" for name, value in card.settings.items()]
    for name, text in card.prompts.items():
        lines += ["", f"## Prompt of the {name}", "", *(f"    {line}" for line in text.split("\n"))]
    return "\n".join([*lines, ""])
