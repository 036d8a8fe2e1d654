"""The rollout browser and the review by hand, as parts of a page: skeleton, packed rollouts, script."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from fapo.report.rollouts import LIMIT, Card, by_name, cards, pack, share_of
from fapo.training.run_reader import Run

HERE = Path(__file__).parent


def shown_cards(runs: Sequence[Run], limit: int = LIMIT) -> tuple[list[Card], float]:
    """The rollouts of the policies for a page, and which share of all they are."""
    named = by_name(runs)
    share = share_of(list(named.values()), limit)
    return [card for name, run in named.items() for card in cards(name, run, share)], share


def script() -> str:
    """The script of a page with rollouts."""
    return "".join((HERE / name).read_text(encoding="utf-8") for name in ("browse.js", "review.js"))


def script_source() -> str:
    """What a content security policy allows to run: this script, nothing a rollout has written."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(script().encode()).digest()).decode() + "'"


def browser(shown: Sequence[Card], share: float) -> str:
    """HTML of the browser."""
    packed = pack(shown)
    held = f"all {len(shown):,} rollouts" if share >= 1 else f"{len(shown):,} rollouts, a random {share:.1%}"
    html = (HERE / "browser.html").read_text(encoding="utf-8")
    return (
        html.replace('<span id="held"></span>', f"Here are {held}, in {len(packed) / 1e6:.1f} MB.")
        + f'<script type="application/gzip" id="rollouts">{packed}</script>\n<script>{script()}</script>'
    )
