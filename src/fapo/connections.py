"""Connections that cost the same however many there are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib.util import find_spec
from urllib.request import getproxies, proxy_bypass

import httpx

from fapo.transport import BoundedTransport


def proxy_for(url: str) -> httpx.Proxy | None:
    """The proxy that the environment names for a server (HTTP_PROXY and the like, less NO_PROXY)."""
    server, known = httpx.URL(url), getproxies()
    address = known.get(server.scheme) or known.get("all")
    if not address or proxy_bypass(server.netloc.decode()):
        return None
    try:
        return httpx.Proxy(address if "://" in address else f"http://{address}")
    except (ValueError, httpx.InvalidURL):  # not repeated: it may hold a password
        name = server.scheme if known.get(server.scheme) else "all"
        raise ValueError(
            f"the proxy for {server.host} is no address: write {name}_proxy like http://127.0.0.1:3128"
        ) from None


class Connections(httpx.AsyncBaseTransport):
    """A transport that keeps every connection in a pool of its own and hands out the one used last.

    httpx's pool looks at all its connections for each request, which with hundreds of them takes longer than the
    request. There is no limit: whoever asks holds one. With a proxy they all go through it.
    """

    def __init__(self, proxy: httpx.Proxy | None = None) -> None:
        if proxy and proxy.url.scheme.startswith("socks") and not find_spec("socksio"):
            raise ValueError("the environment names a SOCKS proxy: pip install 'httpx[socks]' to use it")
        self._context, self._proxy = httpx.create_ssl_context(), proxy
        self._all: list[httpx.AsyncHTTPTransport] = []
        self._free: list[httpx.AsyncHTTPTransport] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One request; its connection is free again when the response is closed."""
        lane = self._free.pop() if self._free else self._open()
        try:
            response = await lane.handle_async_request(request)
        except BaseException:
            self._free.append(lane)
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Borrowed(response.stream, lane, self._free)
        return response

    async def aclose(self) -> None:
        """Close them all."""
        for lane in self._all:
            await lane.aclose()

    def _open(self) -> httpx.AsyncHTTPTransport:
        one = httpx.Limits(max_connections=1, max_keepalive_connections=1)
        self._all.append(BoundedTransport(verify=self._context, limits=one, proxy=self._proxy))
        return self._all[-1]


class _Borrowed(httpx.AsyncByteStream):
    """A response's body, which gives its connection back at the end."""

    def __init__(
        self, stream: httpx.AsyncByteStream, lane: httpx.AsyncHTTPTransport, free: list[httpx.AsyncHTTPTransport]
    ) -> None:
        self._stream, self._lane, self._free = stream, lane, free
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            yield chunk

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            if not self._closed:
                self._closed = True
                self._free.append(self._lane)
