"""Untrusted text on a page: cut, invisible characters written out, escaped."""

from __future__ import annotations

from html import escape
from typing import Any

from fapo.steps import show_invisible


def visible(value: Any, limit: int = 500) -> str:
    """Any text, cut to a length, with invisible characters written out."""
    text = str(value)
    return show_invisible(text[:limit]) + (f" … ({len(text) - limit:,} more characters)" if len(text) > limit else "")


def safe(value: Any, limit: int = 500) -> str:
    """Any text as HTML text."""
    return escape(visible(value, limit))
