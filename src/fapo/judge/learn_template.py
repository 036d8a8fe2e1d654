"""Recover a prompt template from finished prompts, such as those in public data for a GenRM."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Any, Literal

from fapo.data.columns import Row
from fapo.data.sources import read_rows
from fapo.errors import DataError
from fapo.judge.template import PLACEHOLDER, Template, build_prompt
from fapo.types import Message

COLUMNS = ("prompt", "messages", "conversations")
"""Columns that may hold a finished prompt: a text, or a conversation."""
BLOCK = re.compile(r"<(\w+?)_?(\d+)>(.*?)</\1_?\2>", re.DOTALL)
"""Pattern of a numbered, tagged paragraph."""
ESCAPING: Literal["verdicts"] = "verdicts"
"""Escaping of a learned template: a GenRM was trained on boxes that are not escaped."""
MIN_ROWS = 3
"""Minimum number of rows: a text that few prompts share may be chance."""
MIN_FRAME = 3
"""Minimum length, in characters, of the text between problem and reference."""


@dataclass(frozen=True)
class _Parts:
    """One prompt, cut at its steps."""

    where: str
    """File and line."""
    earlier: str
    """System message and worked examples, as in a template file; empty without them."""
    text: str
    """Last user message."""
    head: str
    """Text before the steps."""
    steps: tuple[str, ...]
    """Steps, without the white space around them."""
    body: str
    """Text of one step with placeholders, without what follows it."""
    gaps: tuple[str, ...]
    """Texts between two steps."""
    rest: str
    """Text after the last step."""


@dataclass(frozen=True)
class Learned:
    """A template, and how well it gives the prompts back."""

    template: Template
    """Template."""
    rows: int
    """Number of prompts."""
    exact: int
    """Number of prompts that the template gives back character by character."""
    escaped_only: int
    """Number of prompts that differ only where untrusted text is escaped."""
    differing: str = ""
    """Place of the first of the other prompts, and the first difference; empty without one."""


@dataclass(frozen=True)
class _Unescaped(Template):
    """A template that escapes nothing, for comparisons only."""

    def escape(self, text: str, num_steps: int | None = None) -> str:
        """Return the text as it is."""
        return text


def learn_template(source: str, name: str = "template") -> Learned:
    """Recover the template of finished prompts.

    What all prompts share is the template. What differs before the steps is the problem and, after a shared text, the
    reference. The steps are numbered, tagged paragraphs. Numbers after them may be the number of steps.

    Args:
        source: File (.jsonl, .json, .parquet) or Hugging Face id with a column `prompt` or `messages`.
        name: Name of the template, for messages.

    Returns:
        The template, and the number of prompts that it gives back.

    Raises:
        DataError: There are too few rows, or the prompts have no such form.
    """
    parts = [_parts(where, row) for where, row in read_rows(source)]
    if len(parts) < MIN_ROWS:
        raise DataError(f"{source}: {len(parts)} rows, must be at least {MIN_ROWS} that differ")
    earlier = _commonest(part.earlier for part in parts)
    gap = _commonest([gap for part in parts for gap in part.gaps] or [""])
    body = _commonest(part.body for part in parts) + gap
    before, between, after = _head_frame([part.head for part in parts], source)
    head = before + "{{problem}}" + (between + "{{reference}}" if between else "") + after
    tail = _tail_frame(parts, gap)
    for frame in (before, between, after, earlier):
        if found := PLACEHOLDER.search(frame):
            raise DataError(f"{source}: the prompts hold {found[0]!r}, which a template would fill; use other data")
    text = f"{head}{{{{#steps}}}}{body}{{{{/steps}}}}{tail}"
    template = Template(f"{earlier}\n---user---\n{text}" if earlier else text, name=name, escaping=ESCAPING)
    return _compared(template, parts, (before, between, after), earlier)


def _parts(where: str, row: Row) -> _Parts:
    """Cut the prompt of a row at its steps; raise DataError if it has none."""
    value: Any = next((row[column] for column in COLUMNS if row.get(column)), None)
    turns: list[Message] = value if isinstance(value, list) else [{"role": "user", "content": value}]
    said: list[tuple[Any, Any]] = [(turn.get("role"), turn.get("content")) for turn in turns if isinstance(turn, dict)]
    while said and said[-1][0] != "user":
        said.pop()
    text = said[-1][1] if said else None
    if not isinstance(text, str) or not all(isinstance(content, str) for _, content in said):
        raise DataError(f"{where}: no prompt: expected {' or '.join(COLUMNS)} with a text or a conversation")
    start: list[re.Match[str]] = []
    for found in BLOCK.finditer(text):  # a run that begins at 0; tags of the instructions may come before
        if int(found[2]) == 0 or (start and (found[1], int(found[2])) == (start[0][1], len(start))):
            start = [found] if int(found[2]) == 0 else [*start, found]
    if not start:
        raise DataError(f"{where}: no paragraphs in numbered tags from 0, such as <step_0> ... </step_0>")
    inner = start[0][3]
    left, right = inner[: len(inner) - len(inner.lstrip())], inner[len(inner.rstrip()) :]
    gaps = tuple(text[one.end() : other.start()] for one, other in pairwise(start))
    tag, closing = (part.replace("0", "{{index}}", 1) for part in (f"<{_tag(start[0])}>", f"</{_tag(start[0])}>"))
    body = f"{tag}{left}{{{{step}}}}{right}{closing}"
    steps = tuple(block[3].strip() for block in start)
    earlier = "".join(content if role == "system" else f"\n---{role}---\n{content}" for role, content in said[:-1])
    return _Parts(where, earlier, text, text[: start[0].start()], steps, body, gaps, text[start[-1].end() :])


def _commonest(texts: Iterable[str]) -> str:
    """Return the text that occurs most often."""
    return Counter(texts).most_common(1)[0][0]


def _common_start(texts: Sequence[str]) -> str:
    """Return the characters with which all texts begin."""
    low, high = min(texts), max(texts)
    return low[: next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))]


def _tag(block: re.Match[str]) -> str:
    """Return the name and number in the opening tag of a block."""
    return block[0][1 : block[0].index(">")]


def _head_frame(heads: Sequence[str], source: str) -> tuple[str, str, str]:
    """Return the texts before the problem, between it and the reference (empty without a reference), and after both."""
    before = re.sub(r"\w+$", "", _common_start(heads))
    rest = [head[len(before) :] for head in heads]
    after = re.sub(r"^\w+", "", _common_start([text[::-1] for text in rest])[::-1])
    middles = [text[: len(text) - len(after)] for text in rest]
    if not all(middles):
        raise DataError(f"{source}: the texts before the steps are equal or nested, so no problem can be found in them")
    shared = middles[0]
    for middle in middles[1:]:
        found = SequenceMatcher(None, shared, middle, autojunk=False).find_longest_match()
        shared = shared[found.a : found.a + found.size]
    shared = re.sub(r"^\w+|\w+$", "", shared)
    whole = len(shared) >= MIN_FRAME and "\n" in shared and all(middle.count(shared) == 1 for middle in middles)
    return before, shared if whole else "", after


def _tail_frame(parts: Sequence[_Parts], gap: str) -> str:
    """Return the text after the steps and their last gap, with placeholders for numbers that follow their number."""
    pieces = [re.split(r"(\d+)", part.rest.removeprefix(gap)) for part in parts]
    out = []
    for column in zip(*pieces, strict=False):
        if len(set(column)) == 1:
            out.append(column[0])
        elif all(value == str(len(part.steps)) for value, part in zip(column, parts, strict=True)):
            out.append("{{num_steps}}")
        elif all(value == str(len(part.steps) - 1) for value, part in zip(column, parts, strict=True)):
            out.append("{{last_index}}")
        else:
            i = next(i for i, value in enumerate(column) if value != column[0])
            raise DataError(f"{parts[i].where}: the text after the steps differs: {column[i][:60]!r}")
    return "".join(out)


def _compared(template: Template, parts: Sequence[_Parts], frame: tuple[str, str, str], earlier: str) -> Learned:
    """Fill the template with the values of each prompt, and compare."""
    before, between, after = frame
    unescaped = _Unescaped(template.text, name=template.name)
    exact, escaped_only, differing = 0, 0, ""
    for part in parts:
        middle = part.head[len(before) : len(part.head) - len(after)]
        problem, _, reference = middle.partition(between) if between else (middle, "", "")
        filled, raw = (
            build_prompt(chosen, problem, reference, part.steps)[-1]["content"] for chosen in (template, unescaped)
        )
        if part.earlier != earlier:
            differing = differing or f"{part.where}: another system message or other worked examples"
            continue
        exact += filled == part.text
        escaped_only += filled != part.text == raw
        if part.text not in (filled, raw) and not differing:
            at = len(_common_start([raw, part.text]))
            differing = f"{part.where}: {part.text[at : at + 60]!r}, the template gives {raw[at : at + 60]!r}"
    return Learned(template, len(parts), exact, escaped_only, differing)
