"""Parse verdicts and vote on them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from fapo.types import Verdict

INTEGER = re.compile(r"[ \t\r\n$]*([+-]?[0-9]+)[ \t\r\n$]*\}")
YES_NO = re.compile(r"[ \t\r\n$]*(yes|no)[ \t\r\n$]*\}", re.IGNORECASE)
MAX_DIGITS = 9
"""No solution has a billion steps; int() is quadratic in the digits and raises beyond 4300."""


def parse_verdict(text: str, num_steps: int) -> Verdict:
    r"""Return the verdict in the last \boxed{...} of a critique that names a step.

    -1 is "no error found"; 0 ... num_steps - 1 is the earliest wrong step. Everything else is unparsable, never a
    guess. The time is linear in the length of the text.

    Args:
        text: Critique that the judge wrote.
        num_steps: Number of steps of the judged solution.
    """
    found, start = _last_box(text, INTEGER)
    if found is None:
        return _unparsable(text, start)
    if len(found[1]) > MAX_DIGITS or not -1 <= (index := int(found[1])) < num_steps:
        reason = f"index {found[1][:20]} is not among -1 ... {num_steps - 1}"
        return Verdict("unparsable", critique=text, reason=reason)
    return Verdict.from_step(None if index == -1 else index, text)


def parse_yes_no(text: str) -> Verdict:
    r"""Return the verdict in the last \boxed{yes|no}, the answer to "is the solution flawed?". It names no step."""
    found, start = _last_box(text, YES_NO)
    if found is None:
        return _unparsable(text, start)
    return Verdict("ok", flawed=found[1].lower() == "yes", critique=text)


def _last_box(text: str, content: re.Pattern[str]) -> tuple[re.Match[str] | None, int]:
    r"""What matches inside the last \boxed{, and where its content starts (-1: there is none)."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None, -1
    start += len("\\boxed{")
    return content.match(text, start), start


def _unparsable(text: str, start: int) -> Verdict:
    reason = "no \\boxed{}" if start < 0 else f"the last \\boxed{{ holds no answer: {text[start : start + 40]!r}"
    return Verdict("unparsable", critique=text, reason=reason)


def majority(verdicts: Sequence[Verdict]) -> Verdict:
    """Return the first of several verdicts on one rollout that agrees with the outcome of their vote.

    Verdicts that are not ok do not vote. "Flawed" needs more than half of the votes; a tie is "no error found". Then
    the step that was named most often wins, and the smallest one of a tie. Without any vote the first verdict is
    returned.
    """
    assert verdicts, "nothing to vote on"
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
