"""HTTP to one server: kept connections, proxies and certificates of the environment, a bound on what it may send."""

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
"""Bytes of one answer; ten times the longest critique there is."""
IDLE = 4.0
"""Seconds after which an unused connection is not used again. Many servers close theirs after five, and a request sent
in that moment is lost."""
MAX_CONNECT = 10.0
"""Seconds for a connection to stand."""


class TooLong(aiohttp.ClientError):
    """The server sends more than any completion needs."""


class Connector(aiohttp.TCPConnector):
    """One that need not be closed: let go, it takes its connections with it, where aiohttp's complains on the log."""

    def __del__(self, *_: object) -> None:
        pass


def open_session(url: str, api_key: str, timeout: float) -> aiohttp.ClientSession:
    """A session of the running event loop for the server at `url`, with as many connections as are asked for at once.

    Raises ConfigError when the environment names a proxy that cannot be used.
    """
    certificates = _certificates() if url.startswith("https") else True
    return aiohttp.ClientSession(
        base_url=url.rstrip("/") + "/",
        connector=Connector(limit=0, keepalive_timeout=IDLE, ssl=certificates),
        # asked for unpacked, so that the bytes that are counted are those that are kept
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
    """The proxy that the environment names for a server (HTTP_PROXY and the like, less NO_PROXY)."""
    server, known = urlsplit(url), getproxies()
    name = server.scheme if known.get(server.scheme) else "all"
    if not (address := known.get(name)) or proxy_bypass(server.netloc):
        return None
    address = address if "://" in address else f"http://{address}"
    try:
        proxy = urlsplit(address)
        usable = proxy.scheme in ("http", "https") and bool(proxy.hostname) and proxy.port != 0
    except ValueError:  # not repeated: it may hold a password
        usable = False
    if not usable:
        raise ConfigError(
            f"the proxy for {server.hostname} is not one for HTTP: write {name}_proxy like http://127.0.0.1:3128, "
            f"or put {server.hostname} into no_proxy"
        )
    return address


async def chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """A response's body as it comes. Raises TooLong beyond MAX_ANSWER bytes, and for anything packed."""
    packed = response.headers.get("content-encoding", "identity")
    if packed != "identity":
        raise TooLong(f"the answer is packed ({packed}), which was not asked for")
    num = 0
    async for chunk in response.content.iter_any():
        num += len(chunk)
        if num > MAX_ANSWER:
            raise TooLong(f"the answer is longer than {MAX_ANSWER / 2**20:g} MB")
        yield chunk


def _certificates() -> ssl.SSLContext:
    """The authorities that SSL_CERT_FILE and SSL_CERT_DIR name, else the system's and certifi's."""
    context = ssl.create_default_context()
    if not (os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")):
        context.load_verify_locations(certifi.where())
    return context
