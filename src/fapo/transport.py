"""HTTP with a bound on what a server may send: an answer that never ends, or unpacks to gigabytes, is an error."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx

MAX_ANSWER = 8 << 20
"""Bytes of one answer; ten times the longest critique there is."""


class TooLong(httpx.ReadError):
    """The server sends more than any completion needs."""


class BoundedTransport(httpx.AsyncHTTPTransport):
    """The usual transport; reading more than MAX_ANSWER bytes, or anything packed, raises TooLong."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """One request, asked for unpacked, so that the bytes that are counted are those that are kept."""
        request.headers["accept-encoding"] = "identity"
        response = await super().handle_async_request(request)
        packed = response.headers.get("content-encoding", "identity")
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Counted(response.stream, packed)
        return response


class _Counted(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream, packed: str) -> None:
        self.stream, self.packed = stream, packed

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self.packed != "identity":
            raise TooLong(f"the answer is packed ({self.packed}), which was not asked for")
        num = 0
        async for chunk in self.stream:
            num += len(chunk)
            if num > MAX_ANSWER:
                raise TooLong(f"the answer is longer than {MAX_ANSWER / 2**20:g} MB")
            yield chunk

    async def aclose(self) -> None:
        await self.stream.aclose()
