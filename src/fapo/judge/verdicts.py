"""Verdicts of judges: parsing a critique, the vote over several critiques, and the row in which a verdict is stored."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fapo.types import Verdict

INTEGER = re.compile(r"[ \t\r\n$]*([+-]?[0-9]+)[ \t\r\n$]*\}")
YES_NO = re.compile(r"[ \t\r\n$]*(yes|no)[ \t\r\n$]*\}", re.IGNORECASE)
MAX_DIGITS = 9
"""Maximum number of digits of a step index. The time of int() grows with their square, and it raises beyond 4300."""
FLAGGED_UNREAD = "flagged unread"
"""First words of the reason of a verdict on a solution that was too short to be judged."""


# --- Parsing ---------------------------------------------------------------------------------------------------------


def parse_verdict(text: str, num_steps: int) -> Verdict:
    r"""Return the verdict in the last \boxed{...} of a critique that names a step.

    -1 means "no error found"; 0 to num_steps - 1 is the earliest wrong step. Everything else is unparsable. The time
    is linear in the length of the text.

    Args:
        text: Critique that the judge wrote.
        num_steps: Number of steps of the judged solution.

    Returns:
        A verdict with status ok or unparsable.
    """
    found, start = _last_boxed(text, INTEGER)
    if found is None:
        return _unparsable(text, start)
    if len(found[1]) > MAX_DIGITS or not -1 <= (index := int(found[1])) < num_steps:
        reason = f"index {found[1][:20]} is not among -1 ... {num_steps - 1}"
        return Verdict("unparsable", critique=text, reason=reason)
    return Verdict.from_step(None if index == -1 else index, text)


def parse_yes_no(text: str) -> Verdict:
    r"""Return the verdict in the last \boxed{yes|no}, the answer to "is the solution flawed?". It names no step."""
    found, start = _last_boxed(text, YES_NO)
    if found is None:
        return _unparsable(text, start)
    return Verdict("ok", flawed=found[1].lower() == "yes", critique=text)


def _last_boxed(text: str, content: re.Pattern[str]) -> tuple[re.Match[str] | None, int]:
    r"""Return the match of `content` inside the last \boxed{, and the index where the content starts (-1: no box)."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None, -1
    start += len("\\boxed{")
    return content.match(text, start), start


def _unparsable(text: str, start: int) -> Verdict:
    """Return the verdict on a critique without a valid boxed answer; `start` is as in `_last_boxed`."""
    reason = "no \\boxed{}" if start < 0 else f"the last \\boxed{{ holds no answer: {text[start : start + 40]!r}"
    return Verdict("unparsable", critique=text, reason=reason)


# --- Voting ----------------------------------------------------------------------------------------------------------


def majority(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the first of several verdicts on one rollout that agrees with the outcome of their vote.

    Verdicts that are not ok do not vote. "Flawed" needs more than half of the votes; a tie means "no error found". The
    step is then the one that was named most often, and of several the smallest. Without any vote the first verdict is
    returned.
    """
    assert verdicts, "a vote needs at least one verdict"
    votes = [verdict for verdict in verdicts if verdict.status == "ok"]
    if not votes:
        return verdicts[0]
    flagged = [vote for vote in votes if vote.flawed]
    if 2 * len(flagged) <= len(votes):
        return next(vote for vote in votes if not vote.flawed)
    named = Counter(vote.error_step for vote in flagged if vote.error_step is not None)
    if not named:
        return flagged[0]
    outcome = min(named, key=lambda index: (-named[index], index))
    return next(vote for vote in flagged if vote.error_step == outcome)


# --- Rows ------------------------------------------------------------------------------------------------------------


def verdict_row(verdict: Verdict | None) -> dict[str, Any]:
    """Return the columns that a verdict has in every file that fapo writes; None means that no judge was asked."""
    return {
        "status": verdict.status if verdict else "skipped",
        "flawed": verdict.flawed if verdict else None,
        "error_step": verdict.error_step if verdict else None,
        "critique": verdict.critique if verdict else "",
        "critique_tokens": verdict.num_tokens if verdict else 0,
        "reason": verdict.reason if verdict else "",
    }


def verdict_from_row(row: Mapping[str, Any]) -> Verdict | None:
    """Return the verdict in a row that fapo wrote, None where no judge was asked.

    Rows of older versions are read too: without a column `flawed`, a step means flawed; see also `named_step`.
    """
    status, flawed = row["status"], row.get("flawed")
    if status == "skipped":
        return None
    texts = row.get("critique") or "", row.get("reason") or "", row.get("critique_tokens") or 0
    if status != "ok":
        return Verdict(status, None, None, *texts)
    return Verdict("ok", row["error_step"] is not None if flawed is None else flawed, named_step(row), *texts)


def named_step(row: Mapping[str, Any]) -> Any:
    """Return the step that the judge of a row named, None where it named none.

    Older versions of fapo wrote step 0 for the "yes" of a yes/no judge and for solutions that were flagged unread.
    The critique shows the first case. The second case shows in the reason or, where an old rollouts.jsonl has no
    reasons, in the empty critique.
    """
    step = row.get("error_step")
    if step != 0 or isinstance(step, bool):
        return step
    critique, reason = str(row.get("critique") or ""), str(row.get("reason") or "")
    old_rollout = "reason" not in row and "critique_tokens" in row
    unread = reason.startswith(FLAGGED_UNREAD) or (old_rollout and not critique)
    return None if unread or parse_yes_no(critique).flawed else step
