"""Read a streamed answer."""

from __future__ import annotations


class Unusable(Exception):
    """The server said 200, but what it sent is not a chat completion."""
