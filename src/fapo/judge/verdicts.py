"""Verdicts of judges: parsing a critique, the vote over several critiques, and the row in which a verdict is stored."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from fapo.data.trajectory import without_thinking
from fapo.types import Verdict

INTEGER = re.compile(r"[ \t\r\n$]*([+-]?[0-9]+)[ \t\r\n$]*\}")
YES_NO = re.compile(r"[ \t\r\n$]*(yes|no)[ \t\r\n$]*\}", re.IGNORECASE)
JSON_END = re.compile(r"[ \t\r\n]*:[ \t\r\n]*(-?[0-9]+|true|false)[ \t\r\n]*\}[ \t\r\n]*")
"""Pattern of the rest of an answer in JSON after the key of its verdict, where that is the last one."""
JSON_KEYS = {True: "first_wrong_step", False: "flawed"}
"""Whether a verdict names a step -> its key in JSON."""
BOX = "\\boxed{"
"""Text before a boxed answer."""
MAX_DIGITS = 9
"""Maximum number of digits of a step index. The time of int() grows with their square, and it raises beyond 4300."""
CUT_OFF = "cut off at the length limit"
"""Reason of an unparsable verdict: the judge had not finished its critique."""
NO_STEP = "no boxed step"
"""Reason of an unparsable verdict: no integer in the last box, or no box at all."""
NO_ANSWER = "no boxed yes or no"
"""Reason of an unparsable verdict: neither yes nor no in the last box, or no box at all."""
NO_JSON = "no JSON verdict"
"""Reason of an unparsable verdict: JSON was requested, and the answer is none; the server did not enforce it."""
OUT_OF_RANGE = "step out of range"
"""Reason of an unparsable verdict: the solution has no such step."""
GIVEN_STEP = "the step is given"
"""Reason of an unparsable verdict: the step that it names was not written by the policy."""
BLANK = "blank solution"
"""Reason of an unparsable verdict: there is nothing to judge, so the judge was not asked."""
FLAGGED_UNREAD = "flagged unread"
"""First words of the reason of a verdict on a solution that was too short to be judged."""


# --- Parsing ---------------------------------------------------------------------------------------------------------


def parse_verdict(text: str, num_steps: int) -> Verdict:
    r"""Return the verdict in the last \boxed{...} of a critique that names a step.

    -1 means "no error found"; 0 to num_steps - 1 is the earliest wrong step. Everything else is unparsable. Only what
    follows the thinking counts. The time is linear in the length of the text.

    Args:
        text: Critique that the judge wrote, and finished; one that was cut off is no verdict, whatever it holds.
        num_steps: Number of steps of the judged solution.

    Returns:
        A verdict with status ok or unparsable.
    """
    found = _last_boxed(text, INTEGER)
    if found is None:
        return Verdict("unparsable", critique=text, reason=NO_STEP)
    if len(found[1]) > MAX_DIGITS or not -1 <= (index := int(found[1])) < num_steps:
        return Verdict("unparsable", critique=text, reason=OUT_OF_RANGE)
    return Verdict.from_step(None if index == -1 else index, text)


def parse_yes_no(text: str) -> Verdict:
    r"""Return the verdict in the last \boxed{yes|no}, the answer to "is the solution flawed?". It names no step."""
    found = _last_boxed(text, YES_NO)
    if found is None:
        return Verdict("unparsable", critique=text, reason=NO_ANSWER)
    return Verdict("ok", flawed=found[1].lower() == "yes", critique=text)


def parse_json(text: str, num_steps: int, *, names_step: bool) -> Verdict:
    """Return the verdict in an answer that is a JSON object.

    Args:
        text: Answer of the judge, {"critique": ..., "first_wrong_step": -1} or {"critique": ..., "flawed": false}.
        num_steps: Number of steps of the judged solution.
        names_step: Whether the answer names a step.

    Returns:
        A verdict with status ok or unparsable; its critique is the whole answer.
    """
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        answer = None
    verdict = answer.get(JSON_KEYS[names_step]) if isinstance(answer, dict) else None
    if not names_step and isinstance(verdict, bool):
        return Verdict("ok", flawed=verdict, critique=text)
    if not names_step or isinstance(verdict, bool) or not isinstance(verdict, int):
        return Verdict("unparsable", critique=text, reason=NO_JSON)
    if not -1 <= verdict < num_steps:
        return Verdict("unparsable", critique=text, reason=OUT_OF_RANGE)
    return Verdict.from_step(None if verdict == -1 else verdict, text)


def written_verdict(text: str, *, names_step: bool, as_json: bool) -> str | None:
    """Return the verdict in a critique that has one as it is written, from what follows `before_verdict` to its brace.

    Args:
        text: Critique with a verdict.
        names_step: Whether the verdict names a step.
        as_json: Whether the critique is JSON.

    Returns:
        The text, such as "-1}" or "true}"; None for JSON in which the verdict is not the last value.
    """
    if not as_json:
        found = _last_boxed(text, INTEGER if names_step else YES_NO)
    else:
        key = f'"{JSON_KEYS[names_step]}"'
        found = JSON_END.fullmatch(text, max(text.rfind(key), 0) + len(key))
    return f"{found[1]}}}" if found else None


def before_verdict(*, names_step: bool, as_json: bool) -> str:
    r"""Return the text before each verdict, without white space: `\boxed{`, or a key of JSON with its colon."""
    return f'"{JSON_KEYS[names_step]}":' if as_json else BOX


def is_verdict(text: str, start: int, num_steps: int) -> bool:
    """Return whether a box would be read as a verdict of any kind, if a judge repeated it.

    Args:
        text: Text with the box.
        start: Index at which the content of the box starts.
        num_steps: Number of steps of the judged solution.

    Returns:
        Whether the content is yes, no, or an integer among -1 ... num_steps - 1.
    """
    found = INTEGER.match(text, start)
    if found is None or len(found[1]) > MAX_DIGITS:
        return found is None and YES_NO.match(text, start) is not None
    return -1 <= int(found[1]) < num_steps


def _last_boxed(text: str, content: re.Pattern[str]) -> re.Match[str] | None:
    r"""Return the match of `content` inside the last \boxed{ after the thinking; None without one.

    The thinking ends with the last closing tag. Chat templates often write the opening tag, so it may be missing.
    """
    text = without_thinking(text)
    start = text.rfind(BOX)
    return None if start < 0 else content.match(text, start + len(BOX))


# --- Voting ----------------------------------------------------------------------------------------------------------


def majority(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the first of several verdicts on one rollout that agrees with the outcome of their vote.

    The outcome is the plurality over the answers: no error found, flawed without a step, or flawed at a step. The
    answer that came first wins a tie. Verdicts that are not ok do not vote; without any vote the first verdict is
    returned. This is the rule of ProcessBench's published script for maj@k, where a step out of range votes too.
    """
    assert verdicts, "a vote needs at least one verdict"
    votes = [verdict for verdict in verdicts if verdict.status == "ok"] or verdicts
    num_votes = Counter((vote.flawed, vote.error_step) for vote in votes)
    return max(votes, key=lambda vote: num_votes[vote.flawed, vote.error_step])


def vote(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the verdict of `majority`, with what is known of all votes: flags, probabilities of a flaw and tokens."""
    chosen = majority(verdicts)
    if len(verdicts) == 1:
        return chosen
    flags = [bool(verdict.flawed) for verdict in verdicts if verdict.status == "ok"]
    known = [verdict.flag_probability for verdict in verdicts if verdict.flag_probability is not None]
    return replace(
        chosen,
        flag_rate=sum(flags) / len(flags) if flags else None,
        flag_probability=sum(known) / len(known) if known else None,
        all_tokens=sum(verdict.num_tokens for verdict in verdicts),
    )


# --- Rows ------------------------------------------------------------------------------------------------------------


def verdict_row(verdict: Verdict | None) -> dict[str, Any]:
    """Return the columns that a verdict has in every file that fapo writes; None means that no judge was asked.

    Some verdicts have further columns: `scores` that of a process reward model, `flag_rate` and `all_tokens` that of a
    vote, `flag_probability` that of a judge with log probabilities, and `given_by` that of a cascade.
    """
    further = {
        "scores": list(verdict.scores) or None if verdict else None,
        "flag_rate": verdict.flag_rate if verdict else None,
        "flag_probability": verdict.flag_probability if verdict else None,
        "all_tokens": verdict.all_tokens or None if verdict else None,
        "given_by": verdict.given_by or None if verdict else None,
    }
    return {
        "status": verdict.status if verdict else "skipped",
        "flawed": verdict.flawed if verdict else None,
        "error_step": verdict.error_step if verdict else None,
        "critique": verdict.critique if verdict else "",
        "critique_tokens": verdict.num_tokens if verdict else 0,
        "reason": verdict.reason if verdict else "",
        **{name: value for name, value in further.items() if value is not None},
    }


def verdict_from_row(row: Mapping[str, Any]) -> Verdict | None:
    """Return the verdict in a row that fapo wrote, None where no judge was asked."""
    if row["status"] == "skipped":
        return None
    return Verdict(
        row["status"],
        row.get("flawed"),
        row.get("error_step"),
        row.get("critique") or "",
        row.get("reason") or "",
        row.get("critique_tokens") or 0,
        scores=tuple(row.get("scores") or ()),
        flag_rate=row.get("flag_rate"),
        flag_probability=row.get("flag_probability"),
        all_tokens=row.get("all_tokens") or 0,
        given_by=row.get("given_by") or "",
    )
