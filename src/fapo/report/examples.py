"""Rollouts worth reading: flagged flawed positives of the last steps, and those where oracle and judge disagree."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

from fapo.report.runs import Run
from fapo.steps import split

Case = Literal["caught", "flagged", "missed", "false alarm"]
_KEPT = 400
_SHOWN_STEPS = 40
_SPLIT_AT_MOST = 50_000
_EXPLAINED: dict[str, str] = {
    "caught": "caught: flagged by the judge, and flawed by the oracle",
    "flagged": "flagged by the judge",
    "missed": "missed: flawed, but the judge found nothing",
    "false alarm": "false alarm: flagged, but every step is right",
}


@dataclass(frozen=True)
class Example:
    """One rollout with a right answer, chosen to be read."""

    case: Case
    """flagged: there is no oracle; the other three compare judge and oracle."""
    row: Mapping[str, Any]
    """Its row in rollouts.jsonl."""


def choose(run: Run, num: int) -> list[Example]:
    """Up to `num` of the latest rollouts with a right answer, one for each problem, training before validation.

    Half are flagged and flawed (or flagged, without an oracle), the rest false alarms and missed ones.
    """
    found: dict[Case, dict[str, Mapping[str, Any]]] = {"caught": {}, "flagged": {}, "false alarm": {}, "missed": {}}
    for row in run.rollouts():
        if case := _case(row):
            rows = found[case]
            key = f"{row.get('split') == 'train'} {row.get('problem_id')}"
            rows.pop(key, None)
            rows[key] = row
            if len(rows) > _KEPT:
                del rows[next(iter(rows))]
    latest = {
        case: sorted(newest_first, key=lambda row: row.get("split") != "train")
        for case, rows in found.items()
        for newest_first in [list(rows.values())[::-1]]
    }
    disagreements = min(num // 2, len(latest["false alarm"]) + len(latest["missed"]))
    chosen = [Example(case, row) for case in ("caught", "flagged") for row in latest[case]][: num - disagreements]
    mixed = _alternating(latest["false alarm"], latest["missed"])[:disagreements]
    chosen += [Example(_case(row) or "flagged", row) for row in mixed]
    return chosen


def _case(row: Mapping[str, Any]) -> Case | None:
    flawed, truth = row.get("flawed"), row.get("truth")
    if row.get("correct") is not True or not isinstance(flawed, bool) or not isinstance(row.get("response"), str):
        return None
    if not isinstance(truth, Mapping):
        return "flagged" if flawed else None
    if truth.get("error_step") is None:
        return "false alarm" if flawed else None
    return "caught" if flawed else "missed"


def _alternating(*rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    longest = max(map(len, rows))
    return [some[i] for i in range(longest) for some in rows if i < len(some)]


def card(example: Example) -> str:
    """HTML of one example: the solution step by step, the steps named by judge and oracle, the critique beside it."""
    row, case = example.row, example.case
    truth = row.get("truth") if isinstance(row.get("truth"), Mapping) else None
    true_step, kind = (truth.get("error_step"), truth.get("flaw")) if truth else (None, None)
    judged = row.get("error_step") if row.get("flawed") else None
    facts = [f"step {row.get('step')}", str(row.get("split", "")), f"problem {row.get('problem_id')}"]
    for name in ("reward", "advantage"):
        if isinstance(value := row.get(name), int | float):
            facts.append(f"{name} {value:+.2f}")
    oracle = ""
    if truth is not None:
        says = "every step is right" if true_step is None else f"step {true_step} is the first wrong one"
        oracle = f'<p class="oracle"><b>Oracle:</b> {safe(says)}{safe(f" ({kind})") if kind else ""}</p>'
    critique = row.get("critique")
    return (
        f'<article class="case {case.replace(" ", "-")}"><header><b>{_EXPLAINED[case]}</b>'
        f"<span>{safe(' · '.join(facts), 200)}</span></header>"
        f'<p class="problem">{safe(row.get("problem", ""), 1500)} '
        f"<span>right answer: <b>{safe(row.get('reference', ''), 100)}</b></span></p>"
        f'<div class="sides"><ol start="0">{_steps(row["response"], judged, true_step)}</ol>'
        f"<div><h4>Critique</h4><pre>{safe(critique, 2500) if critique else '(none on record)'}</pre>{oracle}</div>"
        "</div></article>"
    )


def _steps(response: str, judged: Any, true: Any) -> str:
    steps = split(response[:_SPLIT_AT_MOST])
    shown, items = 0, []
    for index, step in enumerate(steps):
        named = index in (judged, true)
        if index >= _SHOWN_STEPS and not named:
            continue
        tags = "<mark>judge: wrong</mark>" * (index == judged) + "<em>oracle: wrong</em>" * (index == true)
        kind = f' class="{"judged" if index == judged else "true"}"' if named else ""
        items.append(f'<li value="{index}"{kind}><pre>{safe(step.strip(), 900)}</pre>{tags}</li>')
        shown += 1
    if hidden := len(steps) - shown:
        items.append(f'<li class="rest">{hidden} more steps</li>')
    if (rest := len(response) - _SPLIT_AT_MOST) > 0:
        items.append(f'<li class="rest">{rest:,} more characters</li>')
    return "".join(items)


def safe(value: Any, limit: int = 500) -> str:
    """Any text as HTML text: cut to a length, invisible characters written out, then escaped."""
    text = str(value)
    cut = text[:limit]
    if not cut.isprintable():
        cut = "".join(f"\\u{ord(char):04x}" if _invisible(char) else char for char in cut)
    return escape(cut) + (f" … ({len(text) - limit:,} more characters)" if len(text) > limit else "")


def _invisible(char: str) -> bool:
    return char not in "\n\t" and unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
