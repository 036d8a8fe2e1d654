"""Kinds of error that critiques name, found by a rule over their words.

The rule reads no mathematics. `docs/audit.md` says how often it agrees with a reader.
"""

from __future__ import annotations

import re
from typing import Literal

ErrorKind = Literal["calculation", "unjustified step", "guess", "copied answer", "misreading", "other"]
"""Kind of the first error of a solution, by its critique."""

_PATTERNS: tuple[tuple[ErrorKind, str], ...] = (
    (
        "copied answer",
        r"\b(?:copies|copied|copying|restates?|repeats?|parrots?)\b[^.]{0,60}\b(?:answer|reference|result)\b"
        r"|\b(?:answer|result)\b[^.]{0,40}\b(?:is|was|has been) (?:simply |just |merely )?(?:copied|restated)\b"
        r"|\btak(?:es|en|ing)\b[^.]{0,30}\breference answer\b",
    ),
    (
        "guess",
        r"\bguess(?:es|ed|ing|work)?\b|\bby luck\b|\blucky\b|\bout of nowhere\b|\btrial and error\b"
        r"|\barbitrar(?:y|ily)\b|\bwithout (?:any |a )?(?:derivation|calculation|computation|working)\b",
    ),
    (
        "misreading",
        r"\bmis(?:read|reads|reading|interprets?|interpreted|interpretation|understands?|understood|states?|stated)\b"
        r"|\b(?:the )?(?:problem|question|statement) (?:says|states|said|stated|asks?|asked|gives|mentions|specifies)\b"
        r"|\baccording to the (?:problem|question|statement)\b|\bignor(?:es|ed|ing)\b|\bset up\b"
        r"|\boverlook(?:s|ed|ing)?\b"
        r"|\b(?:forgets|forgot|forgetting)\b|\bwrong (?:unit|quantity|variable|value from)\b|\bconfus(?:es|ed|ing)\b",
    ),
    (
        "unjustified step",
        r"\b(?:un|not )justified\b|\bunjustifi\w+|\bjustification\b"
        r"|\bwithout (?:proof|proving|showing|argument|reason)\b"
        r"|\b(?:does|do|did) not follow\b|\bdoesn't follow\b|\bassum(?:es|ed|ing|ption|ptions)\b"
        r"|\bnot (?:always|necessarily)\b"
        r"|\bnot (?:given|known|proven|proved|shown|possible|valid|implied)\b|\bno (?:reason|proof|basis)\b"
        r"|\bunproven\b|\bunsupported\b|\blogical(?:ly)?\b|\binvalid\b|\bcircular\b|\bcontradict\w*|\bskips?\b",
    ),
    (
        "calculation",
        r"calculate|calculation|calculating|compute|computation|\barithmetic\b|\bsimplif(?:y|ies|ied|ication)\b"
        r"|\b(?:add|adds|sum|sums|multiply|multiplies|multiplied|multiplication|divides?|divided|division)\b"
        r"|\bsubtract(?:s|ed|ing|ion)?\b"
        r"|\bsign error\b|\bdecimal\b|\bround(?:s|ed|ing)\b|\bequals?\b|\bequal to\b|\bcoefficient\b"
        r"|\d(?: [a-z]{1,20}){0,3}\s*(?:\\times|\\cdot|[-+*/×÷=^])\s*[\d($]|\w\s?=\s?\w"
        r"|\b(?:is|be|are|gives?|says?)\s+\\?[$(]?\d[^.;]{0,40},? (?:not|instead of)\s"
        r"|\bnot\s+(?:equal to\s+)?\\?[$(]?\d",
    ),
)
"""Kind -> words that name it. The first kind with a match is the result: rare words stand before common ones."""
_RULES = tuple((kind, re.compile(pattern, re.IGNORECASE)) for kind, pattern in _PATTERNS)
_MAX_CHARACTERS = 4000
"""Length of the text that the rule reads, in characters."""


def error_kind(critique: str, error_step: int | None = None) -> ErrorKind:
    r"""Return the kind of error that a critique names.

    The rule reads the critique from the first mention of the flagged step ("Step 2"), or all of it without such a
    mention. It returns the first kind in the order copied answer, guess, misreading, unjustified step, calculation
    with one of its words or forms in this text, such as "guess", "does not follow" or "3 * 4 = 12".

    Args:
        critique: Text of a judge that found an error.
        error_step: Index of the flagged step; None if the judge named none.

    Returns:
        A kind; "other" if no word matches.
    """
    start = None if error_step is None else re.search(rf"\bstep[ _]#?{error_step}\b", critique, re.IGNORECASE)
    text = critique[start.end() if start else 0 :][:_MAX_CHARACTERS]
    return next((kind for kind, pattern in _RULES if pattern.search(text)), "other")
