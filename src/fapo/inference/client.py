"""An async chat client over one or many OpenAI-compatible servers: bounded, retried, never raising for one request."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import aiohttp

from fapo.config.load import check_ranges
from fapo.config.schema import Count, Natural, NonNegative, Positive, TopP
from fapo.errors import ConfigError
from fapo.inference.concurrency import run_all
from fapo.inference.endpoints import MAX_BACKOFF, Endpoint, _base_url, _best, _seconds
from fapo.inference.streaming import Unusable
from fapo.inference.transport import chunks, open_session
from fapo.types import Completion, Message

PATH = "chat/completions"
MAX_RETRY_AFTER = 600.0
"""Seconds; a server that asks to wait longer is not waited for."""
MAX_ERROR = 500
"""Characters kept of what went wrong; servers send whole pages."""


@dataclass(eq=False)
class Refused(Exception):
    """The server said something else than 200."""

    status: int
    """What it said."""
    message: str
    """Why, in its words."""
    pause: float
    """Seconds for which it wants to be left alone."""


@dataclass(eq=False)
class ChatClient:
    """`Complete` over HTTP. A request that fails for good becomes `Completion(error=...)`.

    Each try goes to the least busy server that is well. Tried again: 429, 5xx, no connection, no answer in time, an
    answer that is not a chat completion. Not tried again: any other status. Cancelled requests close their connection.
    May be used from several event loops, one after the other or at once; each has its own connections and limit.
    """

    urls: str | Sequence[str]
    """Base URLs of servers that all serve `model`; a URL without a path gets "/v1"."""
    model: str
    """Name under which the servers know the model."""
    _: KW_ONLY
    api_key: str | None = field(default=None, repr=False)
    """Sent to every server; by default FAPO_API_KEY, the file FAPO_API_KEY_FILE, OPENAI_API_KEY, else "none". It is
    blacked out wherever a server repeats it."""
    concurrency: Count = 64
    """Conversations under way at once, over all servers, pauses between their tries included."""
    timeout: Positive = 600.0
    """Seconds for one try, from sending to the last byte."""
    deadline: Positive | None = None
    """Seconds for all tries of one conversation together, from the first; None: no limit."""
    retries: Natural = 4
    """Further tries after the first one failed."""
    backoff: NonNegative = 0.5
    """Seconds before the first retry; doubled for each further one, up to 30, and jittered."""
    cooldown: NonNegative = 1.0
    """Seconds for which a server that failed rests; doubled for each further failure, up to 30."""
    temperature: NonNegative | None = None
    """Sampling temperature; None leaves it to the server, as for the next two."""
    top_p: TopP | None = None
    """Nucleus sampling."""
    max_tokens: Count | None = None
    """Length limit of a completion in tokens."""
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the request, verbatim (top_k, chat_template_kwargs ...)."""
    batch_size: ClassVar[int] = 1
    """Conversations in one call, for callers that ask in batches: servers do their own batching."""
    _others: set[str] = field(default_factory=set, init=False, repr=False)
    _sessions: dict[asyncio.AbstractEventLoop, tuple[list[Endpoint], asyncio.Semaphore]] = field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        self.urls = [_base_url(url) for url in ([self.urls] if isinstance(self.urls, str) else self.urls)]
        if not self.urls:
            raise ConfigError("no server: urls is empty, give at least one base URL such as http://127.0.0.1:8000/v1")
        check_ranges(self, "ChatClient")
        self.api_key = self.api_key or key_from_environment()
        if not (self.api_key.isascii() and self.api_key.isprintable()):
            raise ConfigError("the API key has characters that no HTTP header can carry; look for a line break in it")

    async def __call__(self, conversations: Sequence[list[Message]]) -> list[Completion]:
        endpoints, slots = self._session()
        answers = [Completion()] * len(conversations)

        async def ask(i: int) -> None:
            answer = await self._complete(endpoints, slots, conversations, i)
            answers[i] = replace(answer, text=self._public(answer.text))

        await run_all(range(len(conversations)), ask, min(self.concurrency, len(conversations)))
        return answers

    def _public(self, text: str) -> str:
        """What a server wrote, without the key. (A key shorter than 8 characters is a word, not a secret.)"""
        assert self.api_key
        return text.replace(self.api_key, "***") if len(self.api_key) >= 8 else text

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        endpoints, _ = self._sessions.pop(asyncio.get_running_loop(), ([], None))
        for endpoint in endpoints:
            await endpoint.session.close()

    def _session(self) -> tuple[list[Endpoint], asyncio.Semaphore]:
        """The running loop's servers and limit. Closed loops are let go: nothing can be awaited there any more."""
        for closed in [loop for loop in list(self._sessions) if loop.is_closed()]:
            self._sessions.pop(closed, None)
        loop = asyncio.get_running_loop()
        if loop not in self._sessions:
            assert self.api_key
            endpoints = [Endpoint(open_session(url, self.api_key, self.timeout)) for url in self.urls]
            self._sessions[loop] = (endpoints, asyncio.Semaphore(self.concurrency))
        return self._sessions[loop]

    async def _complete(
        self, endpoints: list[Endpoint], slots: asyncio.Semaphore, conversations: Sequence[list[Message]], index: int
    ) -> Completion:
        """Try until there is an answer, the error is final, or tries or time are used up.

        The conversation is looked at only now, since a sequence may build it then.
        """
        errors: list[str] = []
        async with slots:
            try:
                async with asyncio.timeout(self.deadline):
                    return await self._persist(endpoints, conversations[index], errors)
            except TimeoutError:
                last = f"; before that: {errors[-1]}" if errors else ""
                return Completion(error=f"no answer within the deadline of {self.deadline:g} s{last}")

    async def _persist(self, endpoints: list[Endpoint], messages: list[Message], errors: list[str]) -> Completion:
        """Try again and again; `errors` takes what went wrong with each try."""
        try:
            body = self._body(messages)
        except UnicodeEncodeError as failure:
            return Completion(error=f"the conversation cannot be sent as UTF-8: {failure.reason}")
        tried: list[Endpoint] = []
        for attempt in range(self.retries + 1):
            if attempt:
                await asyncio.sleep(min(MAX_BACKOFF, self.backoff * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0))
            while wait := (endpoint := _best(endpoints, tried)).closed(time.monotonic()):
                if wait > MAX_RETRY_AFTER:
                    return Completion(error=f"the server asks for a pause of {wait:.0f} s, which is too long to wait")
                await asyncio.sleep(wait)
            tried.append(endpoint)
            endpoint.outstanding += 1
            try:
                async with asyncio.timeout(self.timeout):
                    answer = await self._ask(endpoint.session, body)
                endpoint.failures = 0
                return answer
            except TimeoutError as failure:
                connecting = isinstance(failure, aiohttp.ConnectionTimeoutError)
                errors.append(str(failure) if connecting else f"no answer within {self.timeout:g} s")
                endpoint.failed(self.cooldown)
            except Refused as refusal:
                errors.append(self._public(f"HTTP {refusal.status}: {refusal.message}")[:MAX_ERROR])
                if refusal.status != 429 and refusal.status < 500:
                    return Completion(error=errors[-1])
                endpoint.closed_until = max(endpoint.closed_until, time.monotonic() + refusal.pause)
                if refusal.status != 429:
                    endpoint.failed(self.cooldown)
            except (aiohttp.ClientError, Unusable, UnicodeError) as failure:  # the last: a host that is no name
                errors.append(self._public(_told(failure))[:MAX_ERROR])
                endpoint.failed(self.cooldown)
            finally:
                endpoint.outstanding -= 1
        return Completion(error=f"{errors[-1]} (given up after {self.retries + 1} tries)")

    def _body(self, messages: list[Message]) -> bytes:
        """What is sent. Raises UnicodeEncodeError."""
        sampling = {"temperature": self.temperature, "top_p": self.top_p, "max_tokens": self.max_tokens}
        given = {name: value for name, value in sampling.items() if value is not None}
        asked = {"model": self.model, "messages": messages, **given, **self.extra_body}
        return json.dumps(asked, ensure_ascii=False).encode()

    async def _ask(self, session: aiohttp.ClientSession, body: bytes) -> Completion:
        """One request. Raises aiohttp.ClientError, Refused, Unusable, and UnicodeError for a host that is no name."""
        start = time.perf_counter()
        async with session.post(PATH, data=body) as response:
            pieces = chunks(response)
            if not response.ok:
                pause = _seconds(response.headers.get("retry-after", ""))
                raise Refused(response.status, _message(await _text(pieces)), pause)
            try:
                answer = json.loads(await _text(pieces))
                completion = _read(answer)
                self._notice(answer.get("model"))
            except (ValueError, RecursionError) as failure:
                raise Unusable(f"the answer is not JSON: {failure}") from None
        return replace(completion, seconds=time.perf_counter() - start)

    def _notice(self, name: Any) -> None:
        """Say once that a server answers under another name. Aliases (a date behind it, a path before it) are usual."""
        if not isinstance(name, str) or name in self._others or len(self._others) >= 10:
            return
        if name and self.model not in name and name not in self.model:
            self._others.add(name)
            logging.getLogger("fapo").warning("asked for model %r, a server answers as %.100r", self.model, name)


def key_from_environment() -> str:
    """FAPO_API_KEY, else what stands in the file FAPO_API_KEY_FILE, else OPENAI_API_KEY, else "none"."""
    if not (key := os.environ.get("FAPO_API_KEY")) and (file := os.environ.get("FAPO_API_KEY_FILE")):
        try:
            key = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as failure:
            raise ConfigError(f"FAPO_API_KEY_FILE: cannot read {file}: {failure}") from None
        if not key:
            raise ConfigError(f"FAPO_API_KEY_FILE: {file} is empty; it should hold the key and nothing else")
    return key or os.environ.get("OPENAI_API_KEY") or "none"


def _read(answer: Any) -> Completion:
    """A whole answer. Raises Unusable."""
    choices = answer.get("choices") if isinstance(answer, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    text = message.get("content") or "" if isinstance(message, dict) else None
    if not isinstance(text, str):
        raise Unusable("the answer is not a chat completion")
    usage = answer.get("usage")
    num_tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
    return Completion(text=text, num_tokens=num_tokens if isinstance(num_tokens, int) else 0)


async def _text(pieces: AsyncIterator[bytes]) -> str:
    """All of a body."""
    return b"".join([piece async for piece in pieces]).decode("utf-8", "replace")


def _message(page: str) -> str:
    """What a server says in place of an answer."""
    try:
        error = json.loads(page)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, TypeError, KeyError, RecursionError):
        return page


def _told(failure: Exception) -> str:
    """What went wrong, for people."""
    if isinstance(failure, aiohttp.ClientConnectorError):
        return f"no connection to {failure.host}:{failure.port}: {failure.__cause__ or failure.os_error}"
    return str(failure) or type(failure).__name__
