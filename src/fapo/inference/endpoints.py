"""Servers of one model: their addresses, loads and waits."""

from __future__ import annotations

import time
import weakref
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import aiohttp

from fapo.errors import ConfigError

MAX_BACKOFF = 30.0
"""Seconds; no pause of our own between two tries, and no rest of a server, is longer."""


@dataclass(eq=False)
class Endpoint:
    """One server, as seen from one event loop. A server that failed rests: it is asked only if none is well.

    After its rest it gets one request at a time until it answers. Times are those of time.monotonic().
    """

    session: aiohttp.ClientSession
    """Its connections; knows its address and the key."""
    outstanding: int = 0
    """Requests sent and not yet answered."""
    failures: int = 0
    """Failures since its last answer; those of requests that were under way together count as one."""
    rests_until: float = 0.0
    """When it may be tried again after a failure."""
    closed_until: float = 0.0
    """When it wants to be asked again (Retry-After); nothing is sent before."""

    def __post_init__(self) -> None:
        weakref.finalize(self, self.session.detach)  # a session that is let go unclosed complains on the log

    def resting(self, now: float) -> bool:
        """Whether others should be asked first."""
        return now < self.rests_until or (self.failures > 0 and self.outstanding > 0)

    def closed(self, now: float) -> float:
        """Seconds for which it wants to be left alone."""
        return max(0.0, self.closed_until - now)

    def failed(self, rest: float) -> None:
        """Rest for `rest` seconds after the first failure, twice as long after each further one."""
        now = time.monotonic()
        if now >= self.rests_until:
            self.rests_until = now + min(MAX_BACKOFF, rest * 2 ** min(self.failures, 10))
            self.failures += 1


def _best(endpoints: list[Endpoint], tried: list[Endpoint]) -> Endpoint:
    """The server to ask: open before closed, well before resting, then the least tried and least busy."""
    now = time.monotonic()
    return min(endpoints, key=lambda e: (e.closed(now), e.resting(now), tried.count(e), e.outstanding))


def _base_url(url: str) -> str:
    try:
        parsed = urlsplit(url)
        host = parsed.hostname if parsed.scheme in ("http", "https") and parsed.port != 0 else None
    except ValueError:  # no port, say
        host = None
    if "@" in url or "?" in url:
        raise ConfigError(
            f"the base URL of {host or 'a server'} holds a secret or a query: give the key as FAPO_API_KEY instead"
        )
    if not host:
        raise ConfigError(f"{url!r} is no base URL: write it like http://127.0.0.1:8000/v1")
    return f"{parsed.scheme}://{parsed.netloc}/v1" if parsed.path in ("", "/") else url


def _seconds(retry_after: str) -> float:
    """Return the pause that a Retry-After header asks for, in seconds; 0 for an empty or malformed header."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
