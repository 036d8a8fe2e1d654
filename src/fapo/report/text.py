"""Untrusted text for a page. The template of the page escapes HTML; this module does the rest."""

from __future__ import annotations

from typing import Any

from fapo.data.untrusted_text import show_invisible


def visible(value: Any, limit: int = 500) -> str:
    """Return any value as text that can be seen.

    Args:
        value: Any value.
        limit: Maximum length in characters; longer text is cut and ends with the number of characters left out.

    Returns:
        Text with escape sequences for invisible characters.
    """
    text = str(value)
    return show_invisible(text[:limit]) + (f" … ({len(text) - limit:,} more characters)" if len(text) > limit else "")
