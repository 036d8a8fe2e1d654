"""Connections that cost the same however many there are."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx

from fapo.transport import BoundedTransport


class Connections(httpx.AsyncBaseTransport):
    """A transport that keeps every connection in a pool of its own and hands out the one used last.

    httpx's pool looks at all its connections for each request, which with hundreds of them takes longer than the
    request. There is no limit: whoever asks holds one.
    """

    def __init__(self) -> None:
        self._context = httpx.create_ssl_context()
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
        self._all.append(BoundedTransport(verify=self._context, limits=one))
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
