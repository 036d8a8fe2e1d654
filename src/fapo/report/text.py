"""Untrusted text on a page: cut, invisible characters written out. The page's template escapes it."""

from __future__ import annotations

from typing import Any

from fapo.data.untrusted_text import show_invisible


def visible(value: Any, limit: int = 500) -> str:
    """Return any value as text, cut to `limit` characters, with invisible characters written out."""
    text = str(value)
    return show_invisible(text[:limit]) + (f" … ({len(text) - limit:,} more characters)" if len(text) > limit else "")
