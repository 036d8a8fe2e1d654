"""HTTP to one server: connection pool, proxies and certificates from the environment, and a size limit for answers."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import certifi

from fapo.errors import ConfigError

MAX_ANSWER = 8 << 20
"""Size limit of one answer in bytes, about ten times the longest critique."""
IDLE = 4.0
"""Seconds after which an unused connection is not used again.

Many servers close theirs after five seconds, and a request sent at that moment is lost.
"""
MAX_CONNECT = 10.0
"""Time limit for opening a connection, in seconds."""


class UnreadableBody(aiohttp.ClientError):
    """The body of an answer is too long, or it is compressed."""


class SilentConnector(aiohttp.TCPConnector):
    """Connector that closes silently when it is garbage-collected, without the "Unclosed connector" of aiohttp."""

    def __del__(self, *_: object) -> None:
        pass


def open_session(url: str, api_key: str, timeout: float) -> aiohttp.ClientSession:
    """Open a session with one server.

    Args:
        url: Base URL of the server.
        api_key: API key, sent with each request.
        timeout: Time limit of one try of a request in seconds, which also limits the time for connecting.

    Returns:
        A session of the running event loop; the number of its connections is not limited.

    Raises:
        ConfigError: The environment names a proxy that cannot be used.
    """
    certificates = _certificates() if url.startswith("https") else True
    return aiohttp.ClientSession(
        base_url=url.rstrip("/") + "/",
        connector=SilentConnector(limit=0, keepalive_timeout=IDLE, ssl=certificates),
        # The answer must not be compressed, so that the size that is limited is the size in memory.
        headers={
            "authorization": f"Bearer {api_key}",
            "content-type": "application/json",
            "accept-encoding": "identity",
        },
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        proxy=proxy_for(url),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=min(MAX_CONNECT, timeout)),
    )


def proxy_for(url: str) -> str | None:
    """Find the proxy that the environment names for a server.

    Args:
        url: Base URL of the server.

    Returns:
        The address of the proxy from HTTP_PROXY, HTTPS_PROXY or ALL_PROXY; None for none.

    Raises:
        ConfigError: The proxy is not an address of an HTTP proxy.
    """
    server, known = urlsplit(url), getproxies()
    name = server.scheme if known.get(server.scheme) else "all"
    if not (address := known.get(name)) or proxy_bypass(server.netloc):
        return None
    address = address if "://" in address else f"http://{address}"
    try:
        proxy = urlsplit(address)
        usable = proxy.scheme in ("http", "https") and bool(proxy.hostname) and proxy.port != 0
    except ValueError:  # the message does not repeat the address, because it may hold a password
        usable = False
    if not usable:
        raise ConfigError(
            f"the proxy for {server.hostname} is not one for HTTP: write {name}_proxy like http://127.0.0.1:3128, "
            f"or put {server.hostname} into no_proxy"
        )
    return address


async def chunks(response: aiohttp.ClientResponse, factor: int = 1) -> AsyncIterator[bytes]:
    """Read the body of a response as it arrives.

    Args:
        response: Response of a session from `open_session`.
        factor: Size limit as a multiple of MAX_ANSWER.

    Yields:
        The next piece of the body.

    Raises:
        UnreadableBody: The body is longer than its limit, or it is compressed.
    """
    encoding = response.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise UnreadableBody(f"the answer is compressed ({encoding}), although the request does not allow it")
    num_bytes, limit = 0, factor * MAX_ANSWER
    async for chunk in response.content.iter_any():
        num_bytes += len(chunk)
        if num_bytes > limit:
            raise UnreadableBody(f"the answer is longer than {limit / 2**20:g} MB")
        yield chunk


def _certificates() -> ssl.SSLContext:
    """Return the authorities named by SSL_CERT_FILE and SSL_CERT_DIR, by default those of the system and of certifi."""
    context = ssl.create_default_context()
    if not (os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")):
        context.load_verify_locations(certifi.where())
    return context
