"""An async chat client over one or many OpenAI-compatible servers: bounded, retried, never raising for one request."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import httpx
import openai

from fapo.types import Completion, Message

MAX_BACKOFF = 30.0
"""Seconds; no pause between two tries is longer."""


class Unusable(Exception):
    """The server said 200, but what it sent is not a chat completion."""


@dataclass(eq=False)
class Endpoint:
    """One server, as seen from one event loop."""

    client: openai.AsyncOpenAI
    """Its connections."""
    outstanding: int = 0
    """Requests sent and not yet answered."""


@dataclass(eq=False)
class ChatClient:
    """`Complete` over HTTP. A request that fails for good becomes `Completion(error=...)`.

    Tried again, on another server if there is one: 429, 5xx, no connection, no answer in time, an answer that is not
    a chat completion. Not tried again: any other status. May be used from several event loops, one after the other or
    at once; each has its own connections and its own limit.
    """

    urls: str | Sequence[str]
    """Base URLs of servers that all serve `model`; a URL without a path gets "/v1"."""
    model: str
    """Name under which the servers know the model."""
    _: KW_ONLY
    api_key: str | None = field(default=None, repr=False)
    """Sent to every server; by default FAPO_API_KEY, else OPENAI_API_KEY, else "none"."""
    concurrency: int = 64
    """Requests under way at once, over all servers."""
    timeout: float = 600.0
    """Seconds for one try, from sending to the last byte; waiting for a free slot does not count."""
    retries: int = 4
    """Further tries after the first one failed."""
    backoff: float = 0.5
    """Seconds before the first retry; doubled for each further one, up to 30, and jittered."""
    temperature: float | None = None
    """Sampling temperature; None leaves it to the server, as for the next two."""
    top_p: float | None = None
    """Nucleus sampling."""
    max_tokens: int | None = None
    """Length limit of a completion in tokens."""
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the request, verbatim (top_k, chat_template_kwargs ...)."""
    _sessions: dict[asyncio.AbstractEventLoop, tuple[list[Endpoint], asyncio.Semaphore]] = field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        self.urls = [_base_url(url) for url in ([self.urls] if isinstance(self.urls, str) else self.urls)]
        if not self.urls:
            raise ValueError("no server: urls is empty, give at least one base URL such as http://127.0.0.1:8000/v1")
        if self.concurrency < 1 or self.retries < 0 or self.timeout <= 0 or self.backoff < 0:
            raise ValueError("concurrency must be at least 1, timeout positive, retries and backoff not negative")
        self.api_key = self.api_key or os.environ.get("FAPO_API_KEY") or os.environ.get("OPENAI_API_KEY") or "none"

    async def __call__(self, conversations: Sequence[list[Message]]) -> list[Completion]:
        endpoints, slots = self._session()
        return list(await asyncio.gather(*(self._complete(endpoints, slots, chat) for chat in conversations)))

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        endpoints, _ = self._sessions.pop(asyncio.get_running_loop(), ([], None))
        for endpoint in endpoints:
            await endpoint.client.close()

    def _session(self) -> tuple[list[Endpoint], asyncio.Semaphore]:
        """The running loop's servers and limit. Closed loops are let go: nothing can be awaited there any more."""
        for closed in [loop for loop in list(self._sessions) if loop.is_closed()]:
            self._sessions.pop(closed, None)
        loop = asyncio.get_running_loop()
        if loop not in self._sessions:
            endpoints = [Endpoint(self._connect(url)) for url in self.urls]
            self._sessions[loop] = (endpoints, asyncio.Semaphore(self.concurrency))
        return self._sessions[loop]

    def _connect(self, url: str) -> openai.AsyncOpenAI:
        timeout = httpx.Timeout(self.timeout, connect=min(10.0, self.timeout))
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=self.concurrency)
        http: Any = httpx.AsyncClient(timeout=timeout, limits=limits, follow_redirects=True)
        key = self.api_key
        return openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=0, timeout=self.timeout, http_client=http)

    async def _complete(
        self, endpoints: list[Endpoint], slots: asyncio.Semaphore, messages: list[Message]
    ) -> Completion:
        """Try until there is an answer, the error is final, or the tries are used up."""
        tried: list[Endpoint] = []
        error = ""
        for attempt in range(self.retries + 1):
            wait = 0.0
            async with slots:
                endpoint = min(endpoints, key=lambda e: (tried.count(e), e.outstanding))
                tried.append(endpoint)
                endpoint.outstanding += 1
                try:
                    async with asyncio.timeout(self.timeout):
                        return await self._ask(endpoint.client, messages)
                except (TimeoutError, openai.APITimeoutError):
                    error = f"no answer within {self.timeout:g} s"
                except openai.APIStatusError as failure:
                    error = f"HTTP {failure.status_code}: {failure.message}"
                    if failure.status_code != 429 and failure.status_code < 500:
                        return Completion(error=error)
                    wait = _seconds(failure.response.headers.get("retry-after", ""))
                except UnicodeEncodeError as failure:
                    return Completion(error=f"the conversation cannot be sent as UTF-8: {failure.reason}")
                except (openai.APIError, Unusable) as failure:
                    error = f"{failure} {failure.__cause__ or ''}".strip()
                finally:
                    endpoint.outstanding -= 1
            if attempt < self.retries:
                pause = self.backoff * 2**attempt * random.uniform(0.5, 1.0)
                await asyncio.sleep(min(MAX_BACKOFF, max(wait, pause)))
        return Completion(error=f"{error} (given up after {self.retries + 1} tries)")

    async def _ask(self, client: openai.AsyncOpenAI, messages: list[Message]) -> Completion:
        """One request. Raises openai.APIError, UnicodeEncodeError or Unusable."""
        sampling = {"temperature": self.temperature, "top_p": self.top_p, "max_tokens": self.max_tokens}
        given: dict[str, Any] = {name: value for name, value in sampling.items() if value is not None}
        create: Any = client.chat.completions.create
        try:
            answer = await create(model=self.model, messages=messages, extra_body=dict(self.extra_body), **given)
        except UnicodeEncodeError:
            raise
        except (ValueError, RecursionError) as failure:
            raise Unusable(f"the answer is not JSON: {failure}") from None
        choices = getattr(answer, "choices", None)
        message = getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
        text = getattr(message, "content", None) or ""
        if message is None or not isinstance(text, str):
            raise Unusable("the answer is not a chat completion")
        num_tokens = getattr(getattr(answer, "usage", None), "completion_tokens", None)
        return Completion(text=text, num_tokens=num_tokens if isinstance(num_tokens, int) else 0)


def _base_url(url: str) -> str:
    parsed = httpx.URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"{url!r} is no base URL: write it like http://127.0.0.1:8000/v1")
    return str(parsed.copy_with(path="/v1")) if parsed.path in ("", "/") else url


def _seconds(retry_after: str) -> float:
    """A Retry-After header in seconds; 0 for none and for a date."""
    return float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0
