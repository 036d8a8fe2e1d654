"""Split a solution into steps.

A step is a paragraph. Judges are trained on paragraphs, so training and evaluation both use `split_steps`.
"""

from __future__ import annotations

import math
import re

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
_HEADING = re.compile(
    r"[ \t]*(?:#{1,6}[ \t]+)?(?:\*\*|__)?(?:step[ \t]*\d+\b|\d{1,2}[.)](?:\*\*|__)?[ \t]+\S)", re.IGNORECASE
)


def _closing(opener: re.Match[str]) -> str | None:
    """Return the text that ends the block after `opener`; None if no block begins there."""
    if opener["name"]:
        return f"\\end{{{opener['name']}}}"
    if opener["fence"]:
        return f"\n{opener['fence']}"
    return {"\\[": "\\]", "\\(": "\\)", "$$": "$$"}.get(opener[0])


def protected(text: str) -> list[tuple[int, int]]:
    r"""Find the parts of a text that are never split, if they are closed.

    They are fenced code, display mathematics, and `\(..\)` within a paragraph.

    Args:
        text: Text of a solution.

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
        if closing == "\\)" and following("\n\n") < end:
            continue
        if end == math.inf or (closing == "\\]" and _DISPLAY.search(text, position, int(end))):
            continue  # never closed, or the next display begins before it is
        position = int(end) + len(closing)
        spans.append((opener.start(), position))
    return spans


def split_steps(text: str) -> list[str]:
    """Split a solution into steps.

    A step begins after a blank line, and at a line that begins "Step 3", "**Step 3:**", "## Step 3", "3." or "3)". If
    there is no blank line between the lines of the text, each line is a step. Nothing is split inside `protected`
    ranges. Blank space belongs to the step before it, or to the first step.

    Args:
        text: Text of the solution.

    Returns:
        The steps; joined, they are the text again. An empty text has no steps, any other blank text has one.
    """
    if not text:
        return []
    paragraphs: list[int] = []
    lines: list[int] = []
    headings: list[int] = []
    spans = iter([*protected(text), (len(text) + 1, len(text) + 1)])
    low, high = next(spans)
    start, blank_before, seen = 0, False, False
    for line in text.split("\n"):
        while high <= start:
            low, high = next(spans)
        if not line.strip():
            blank_before = True
        else:
            if seen and not low < start < high:
                lines.append(start)
                if blank_before:
                    paragraphs.append(start)
                elif _HEADING.match(line):
                    headings.append(start)
            seen, blank_before = True, False
        start += len(line) + 1
    cuts = sorted(paragraphs + headings) if paragraphs else lines
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
