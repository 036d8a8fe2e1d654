"""The servers of one model: their addresses, their load, and the pauses after failures."""

from __future__ import annotations

import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import aiohttp

from fapo.errors import ConfigError

MAX_BACKOFF = 30.0
"""Longest pause between two tries, and longest rest of a server, in seconds."""


@dataclass(eq=False)
class Endpoint:
    """One server, as seen from one event loop. All times are those of time.monotonic().

    A server that failed rests: it gets requests only if all servers rest. After its rest it gets one request at a time
    until it answers.
    """

    session: aiohttp.ClientSession
    """HTTP session, which knows the address and the API key."""
    outstanding: int = 0
    """Number of requests that were sent and are not answered yet."""
    failures: int = 0
    """Number of failures since the last answer; requests that fail during a rest do not count."""
    rests_until: float = 0.0
    """End of the rest after the latest failure, in seconds."""
    closed_until: float = 0.0
    """End of the pause that the server asked for (Retry-After), in seconds; nothing is sent before."""

    def __post_init__(self) -> None:
        weakref.finalize(self, self.session.detach)  # aiohttp logs an error for a session that is not closed

    def resting(self, now: float) -> bool:
        """Return whether other servers should be asked first."""
        return now < self.rests_until or (self.failures > 0 and self.outstanding > 0)

    def closed(self, now: float) -> float:
        """Return the rest of the pause that the server asked for, in seconds."""
        return max(0.0, self.closed_until - now)

    def failed(self, rest: float) -> None:
        """Begin a rest of `rest` seconds after the first failure, and twice as long after each further one."""
        now = time.monotonic()
        if now >= self.rests_until:
            self.rests_until = now + min(MAX_BACKOFF, rest * 2 ** min(self.failures, 10))
            self.failures += 1


def best_endpoint(endpoints: Sequence[Endpoint], tried: Sequence[Endpoint]) -> Endpoint:
    """Return the server to ask next.

    Args:
        endpoints: Servers to choose from.
        tried: Servers of the earlier tries of this request, with repetitions.

    Returns:
        The best server: open before closed, well before resting, then the least tried and the least busy.
    """
    now = time.monotonic()
    return min(endpoints, key=lambda e: (e.closed(now), e.resting(now), tried.count(e), e.outstanding))


def base_url(url: str) -> str:
    """Check the address of a server and complete it.

    Args:
        url: Address with or without a path.

    Returns:
        The address, with "/v1" added if it has no path.

    Raises:
        ConfigError: It is not a base URL, or it holds a user name, a password or a query.
    """
    try:
        parsed = urlsplit(url)
        host = parsed.hostname if parsed.scheme in ("http", "https") and parsed.port != 0 else None
    except ValueError:  # for example a port that is not a number
        host = None
    if "@" in url or "?" in url:
        raise ConfigError(
            f"the base URL of {host or 'a server'} holds a secret or a query: give the key as FAPO_API_KEY instead"
        )
    if not host:
        raise ConfigError(f"{url!r} is no base URL: write it like http://127.0.0.1:8000/v1")
    return f"{parsed.scheme}://{parsed.netloc}/v1" if parsed.path in ("", "/") else url


def retry_after_seconds(retry_after: str) -> float:
    """Return the pause that a Retry-After header asks for, in seconds; 0 for an empty or malformed header."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
