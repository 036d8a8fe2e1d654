r"""Solution text to steps, and steps to tagged prompt text in which the solution cannot pass for the prompt.

A step is a paragraph. Judges are trained on paragraphs, so training and evaluation both go through `split_steps`.
The solution is written by the model under training: everything in it that a judge or a parser could take for our
structure (tags, chat tokens, a boxed verdict) is escaped, never removed, so that the judge still sees what was written.
"""

from __future__ import annotations

import math
import re

# ---------------------------------------------------------------- text -> steps

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
    """What ends the block that `opener` begins; None when it begins none."""
    if opener["name"]:
        return f"\\end{{{opener['name']}}}"
    if opener["fence"]:
        return f"\n{opener['fence']}"
    return {"\\[": "\\]", "\\(": "\\)", "$$": "$$"}.get(opener[0])


def protected(text: str) -> list[tuple[int, int]]:
    """Half-open character ranges never torn: fences, display mathematics, `\\(..\\)` within a paragraph; if closed."""
    spans: list[tuple[int, int]] = []
    found: dict[str, float] = {}
    position = 0

    def following(needle: str) -> float:
        """Where `needle` comes next, infinity for nowhere. Remembered, so that hostile text costs linear time."""
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
    """The steps of a solution; joined, they are the text again, character for character.

    Steps begin at paragraphs (after blank lines), and at lines that begin "Step 3", "**Step 3:**", "## Step 3", "3." or
    "3)". A text without any blank line between its lines has a step for each line instead. Blank space stays at the end
    of its step, at the very beginning of the text with the first one. Nothing is split inside `protected` ranges.
    "" has no steps; other blank text is one.
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
