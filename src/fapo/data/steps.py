"""Split a solution into steps.

A step is a paragraph, because judges are trained on paragraphs: FAPO-Critic-85K and ProcessBench have them.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left

from fapo.types import StepRule

_ENVIRONMENTS = (
    "align|aligned|alignat|alignedat|flalign|equation|eqnarray|gather|gathered|multline|multlined|split|displaymath|math|"
    "array|cases|dcases|rcases|matrix|pmatrix|bmatrix|Bmatrix|vmatrix|Vmatrix|smallmatrix|tabular|verbatim|lstlisting"
)
_OPENER = re.compile(
    r"\\\\|\\\$"  # an escaped backslash or dollar opens nothing (`\\[2pt]` is a row break)
    rf"|\\\[|\\\(|\\begin\{{(?P<name>(?:{_ENVIRONMENTS})\*?)\}}|\$\$|^[ \t]*(?P<fence>```+|~~~+)",
    re.MULTILINE,
)
_DISPLAY = re.compile(r"(?<!\\)\\\[")


def _closing(opener: re.Match[str]) -> str | None:
    """Return the text that ends the block after `opener`; None if no block begins there."""
    if opener["name"]:
        return f"\\end{{{opener['name']}}}"
    if opener["fence"]:
        return f"\n{opener['fence']}"
    return {"\\[": "\\]", "\\(": "\\)", "$$": "$$"}.get(opener[0])


def protected(text: str) -> list[tuple[int, int]]:
    r"""Find the parts of a text that are never split into lines, if they are closed.

    They are fenced code, display mathematics, and `\(..\)`.

    Args:
        text: Text of a solution that is one paragraph.

    Returns:
        Half-open ranges (start, end) of characters, in order.
    """
    spans: list[tuple[int, int]] = []
    found: dict[str, float] = {}
    position = 0

    def following(needle: str) -> float:
        """Return the next index of `needle`, or infinity; the cache keeps the time linear for any text."""
        if found.get(needle, -1) < position:
            index = text.find(needle, position)
            found[needle] = index if index >= 0 else math.inf
        return found[needle]

    while opener := _OPENER.search(text, position):
        position = opener.end()
        closing = _closing(opener)
        if closing is None:
            continue
        end = following(closing)
        if end == math.inf or (closing == "\\]" and _DISPLAY.search(text, position, int(end))):
            continue  # never closed, or the next display begins before it is
        position = int(end) + len(closing)
        spans.append((opener.start(), position))
    return spans


def split_steps(text: str, rule: StepRule = "paragraphs") -> list[str]:
    """Split a solution into steps.

    * "paragraphs": a step begins after each empty line, whatever the text around it is. As in the public data of
      judges, a line of spaces is not empty.
    * "lines": the same, but in a text without an empty line each line is a step; nothing is split inside `protected`
      ranges.

    White space belongs to the step before it, or to the first step.

    Args:
        text: Text of the solution.
        rule: Rule by which it is split.

    Returns:
        The steps; joined, they are the text again. An empty text has no steps, any other blank text has one.
    """
    paragraphs: list[int] = []
    lines: list[int] = []
    start, is_after_empty, seen = 0, False, False
    for line in text.split("\n"):
        if line.strip():
            if seen:
                (paragraphs if is_after_empty else lines).append(start)
            seen, is_after_empty = True, False
        elif not line.strip("\r"):
            is_after_empty = True
        start += len(line) + 1
    cuts = paragraphs or (_unprotected(text, lines) if rule == "lines" else [])
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)] if text else []


def _unprotected(text: str, places: list[int]) -> list[int]:
    """Return the places, in order, that are not inside a `protected` range."""
    spans = protected(text)
    starts = [low for low, _ in spans]
    before = [bisect_left(starts, place) - 1 for place in places]  # the last range that begins before the place
    return [place for place, i in zip(places, before, strict=True) if i < 0 or spans[i][1] <= place]
