"""MkDocs hook: a link from a page to a file outside docs/ leads to a copy of that file in the site.

So the pages read on GitHub, where such links work by themselves, and from disk. LOG.md is a page of its own, log.md.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LINK = re.compile(r"(?<=\]\()[^)\s#:]+")
PAGES = {"LOG.md": "log.md"}
"""Files outside docs/ that are pages of the site."""
UNSEARCHED = "---\nsearch:\n  exclude: true\n---\n"
LANGUAGES = {".py": "python", ".toml": "toml", ".md": "markdown", ".jsonl": "json"}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages outside docs/, and a page for each file that a page links to."""
    for path, uri in PAGES.items():
        files.append(File.generated(config, uri, content=(ROOT / path).read_text(encoding="utf-8")))
    linked = {path for page in files.documentation_pages() for path in _outside(page.content_string, page.src_uri)}
    for path in sorted(linked):
        hidden = InclusionLevel.NOT_IN_NAV
        files.append(File.generated(config, _uri(path), content=_as_page(path), inclusion=hidden))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links out of docs/ lead to the pages made for them."""
    here = page.file.src_uri

    def inside(link: re.Match[str]) -> str:
        path = _in_repository(link[0], here)
        uri = path.removeprefix("docs/") if path.startswith("docs/") else _uri(path)
        return posixpath.relpath(uri, posixpath.dirname(here) or ".") if (ROOT / path).is_file() else link[0]

    return LINK.sub(inside, markdown)


def _outside(markdown: str, uri: str) -> Iterator[str]:
    """The files outside docs/ that a page links to and that have no page yet, relative to the repository's root."""
    for link in LINK.findall(markdown):
        path = _in_repository(link, uri)
        if not path.startswith("docs/") and path not in PAGES and (ROOT / path).is_file():
            yield path


def _in_repository(link: str, uri: str) -> str:
    """Where a link leads, relative to the repository's root."""
    home = next((path for path, page in PAGES.items() if page == uri), f"docs/{uri}")
    return os.path.normpath(posixpath.join(posixpath.dirname(home), link))


def _uri(path: str) -> str:
    return PAGES.get(path, f"files/{path}.md")


def _as_page(path: str) -> str:
    text = (ROOT / path).read_text(encoding="utf-8")
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{UNSEARCHED}# `{path}`\n\n{fence}{LANGUAGES.get(Path(path).suffix, 'text')}\n{text}\n{fence}\n"
