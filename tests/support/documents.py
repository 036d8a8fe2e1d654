"""Read the documentation: its pages, their links, and the commands in their blocks of code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from tests.support.paths import ROOT

_NOT_MANUAL = {ROOT / "LOG.md", ROOT / "CHANGELOG.md"}
PAGES = sorted(
    {page for folder in (".", "docs/**", "experiments/**") for page in ROOT.glob(f"{folder}/*.md")} - _NOT_MANUAL
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
SUBSTITUTION = re.compile(r"\$\(([^()]*)\)")
HEREDOC = re.compile(r"<<-?'?(\w+)'?[^\n]*\n.*?^\1$", re.MULTILINE | re.DOTALL)


def named(page: Path) -> str:
    """Return the name of a page for the name of a test: its path in the repository."""
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return [text for kind, text in FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def prose(page: Path) -> str:
    """Return the text of a page without its fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def spans(page: Path) -> list[str]:
    """Return the text between single backticks, each on one line."""
    return [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose(page))]


def anchors(page: Path) -> set[str]:
    """Return the link targets that GitHub makes from the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def commands(page: Path, program: str = "fapo") -> list[list[str]]:
    """Return the commands of a page that call a program, split into words as a shell does; unknown variables stay."""
    text = "\n".join(blocks(page, "console"))
    text = HEREDOC.sub("", text.replace("\\\n", " "))
    known: dict[str, str] = {}
    found = []
    for line in text.splitlines():
        if loop := re.match(r"\s*for (\w+) in (\S+)", line):
            known[loop[1]] = loop[2].rstrip(";")
        line = re.sub(r"\$(\w+)", lambda name: known.get(name[1], name[0]), line)
        inner: list[str] = []

        def cut(part: re.Match[str], inner: list[str] = inner) -> str:
            inner.append(part[1])
            return "SUBSTITUTED"

        while SUBSTITUTION.search(line):
            line = SUBSTITUTION.sub(cut, line)
        if assigned := re.match(r"(\w+)=(\"[^\"]*\"|'[^']*'|\S*)\s*(?:#.*)?$", line):
            known[assigned[1]] = assigned[2].strip("\"'")
        for part in (line, *inner):
            found += [words[1:] for words in _split(part) if words[0] == program]
    return found


def _split(line: str) -> Iterator[list[str]]:
    """Yield the simple commands of a line, without assignments and redirections."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in [*lexer, ";"]:
        if word in ("do", "then") or not word.strip(";&|"):
            words = words[: min((words.index(sign) for sign in ("<", ">") if sign in words), default=len(words))]
            while words and re.match(r"\w+=", words[0]):
                words = words[1:]
            if words:
                yield words
            words = []
        else:
            words.append(word)
