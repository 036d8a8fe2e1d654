"""Plain words: phrases that readers stumble over do not appear in the documentation, nor in docstrings and comments."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "experiments").rglob("*.md")),
]
SOURCES = [path for folder in ("src", "benchmarks", "experiments") for path in sorted((ROOT / folder).rglob("*.py"))]
EXPERIMENTS_LOG = {"LOG.md"}
"""Written as a diary: its old entries stay as they were."""
NAMES_THE_PAST = {"CHANGELOG.md"}
"""May use old names of settings and functions, in code spans."""

AVOIDED = {
    r"\btold\b|\btells?\b": "functions return, raise, call or log; pages say or show",
    r"\bso many\b": "name the number",
    r"\bone's own\b": "say your own, or name the owner",
    r"\bgoes on\b|\bgo on\b": "continues",
    r"\bwill not do\b": "say what is required",
    r"\bof which\b|\bin place of what\b": "split the sentence",
    r"\bwhose\b": "split the sentence",
    r"\balarms?\b": "false positive rate",
    r"\bjournal(s|ed)?\b": "response cache",
    r"\ba share of\b|\bshare of the\b": "rate, or fraction",
}


def avoided(text: str) -> list[str]:
    """Return a message for each phrase of the list that a text contains, with its line and what to write instead."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        for pattern, remedy in AVOIDED.items():
            found += [f"line {number}: {match!r}: {remedy}" for match in _matches(pattern, line)]
    return found


def _matches(pattern: str, line: str) -> list[str]:
    return [match.group() for match in re.finditer(pattern, line, re.IGNORECASE)]


def prose(source: str) -> str:
    """Return docstrings and comments of a Python source on the lines where they stand, and nothing else."""
    lines = [""] * (source.count("\n") + 2)
    previous, depth = tokenize.NEWLINE, 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        depth += (token.string in "([{") - (token.string in ")]}") if token.type == tokenize.OP else 0
        new_line = previous in (tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT)
        starts_statement = new_line and depth == 0
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and starts_statement):
            for offset, line in enumerate(token.string.splitlines()):
                lines[token.start[0] - 1 + offset] += line
        if token.type != tokenize.COMMENT:
            previous = token.type
    return "\n".join(lines)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_use_plain_words(page: Path) -> None:
    if page.name in EXPERIMENTS_LOG:
        pytest.skip("a diary")
    text = page.read_text(encoding="utf-8")
    if page.name in NAMES_THE_PAST:
        text = re.sub(r"`[^`\n]*`", "", text)
    assert avoided(text) == []


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: str(source.relative_to(ROOT)))
def test_docstrings_and_comments_use_plain_words(source: Path) -> None:
    assert avoided(prose(source.read_text(encoding="utf-8"))) == []


def test_an_avoided_phrase_is_found_with_its_line() -> None:
    assert avoided("fine\nThe judge is told twice.") == [
        "line 2: 'told': functions return, raise, call or log; pages say or show"
    ]
    assert avoided(prose('x = "told"  # told\n')) != []
    assert avoided(prose('x = "told"\n')) == []
    assert avoided(prose('x = {\n    "told": 1,\n}\n')) == []
    assert avoided(prose('def f():\n    """Tells it."""\n')) != []
