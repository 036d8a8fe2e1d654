"""Untrusted text on a page: cut, invisible characters written out, escaped."""

from __future__ import annotations

import unicodedata
from html import escape
from typing import Any


def visible(value: Any, limit: int = 500) -> str:
    """Any text, cut to a length, with invisible characters written out."""
    text = str(value)
    cut = text[:limit]
    if not cut.isprintable():
        cut = "".join(f"\\u{ord(char):04x}" if _invisible(char) else char for char in cut)
    return cut + (f" … ({len(text) - limit:,} more characters)" if len(text) > limit else "")


def safe(value: Any, limit: int = 500) -> str:
    """Any text as HTML text."""
    return escape(visible(value, limit))


def _invisible(char: str) -> bool:
    return char not in "\n\t" and unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
