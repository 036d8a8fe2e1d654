"""Nested tables as dotted keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of a nested table with their dotted keys.

    Args:
        table: Nested table. An empty table in it is a value.
        prefix: Dotted key of the table with a dot at its end, or "".

    Yields:
        Dotted key and value. Parts of a key may contain dots or begin with + themselves.
    """
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
