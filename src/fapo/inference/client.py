"""An async chat client for one or several OpenAI-compatible servers, with retries and bounded concurrency."""

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

from fapo.config.ranges import Natural, NonNegative, check_ranges
from fapo.config.sampling import Requests, Sampling, check_extra_body, settings_of
from fapo.errors import ConfigError
from fapo.inference.concurrency import run_all
from fapo.inference.endpoints import MAX_BACKOFF, Endpoint, base_url, best_endpoint, retry_after_seconds
from fapo.inference.token_choices import NUM_ALTERNATIVES, served_choices
from fapo.inference.transport import chunks, open_session
from fapo.types import Completion, Constrained, Message

MAX_RETRY_AFTER = 600.0
"""Longest pause that a server may ask for, in seconds; a longer one is an error."""
LENGTH_LIMIT = ("length", "model_length")
"""Values of finish_reason for a completion that a length limit ended."""
BROKEN_OFF = ("abort", "error")
"""Values of finish_reason for a completion that the server broke off, as one does that is paused or stopped."""
FILTERED = "content_filter"
"""Value of finish_reason for a completion that a filter of the server has cut off."""
LOGPROBS_FACTOR = 8
"""Size limit of an answer with log probabilities by that of one without; a token with its alternatives has 2 kB."""
NO_LOGPROBS = (
    "the server's answer has no log probabilities that can be read; use a server that has them (vLLM, SGLang, "
    "llama.cpp), or unset `logprobs`"
)
"""Error of an answer without log probabilities, where they were asked for."""
MAX_TOKENS = 1 << 31
"""Number of tokens above any that a model reads or writes for one request; such a count counts as unknown."""
MAX_ERROR = 500
"""Length limit of an error message in characters, because servers send whole pages."""


@dataclass(eq=False)
class Refused(Exception):
    """The server answered with a status other than 200."""

    status: int
    """HTTP status."""
    message: str
    """Error message of the server."""
    pause: float
    """Pause that the server asks for, in seconds."""


class NotACompletion(Exception):
    """The server answered with status 200, but the answer is not a chat completion."""


@dataclass(frozen=True, eq=False)
class ChatClient(Requests, Sampling):
    """Chat model behind OpenAI-compatible servers. A request that fails becomes `Completion(error=...)`.

    Each try goes to the least busy server, and servers that failed rest. A request is tried again if there is no
    connection, no answer in time or no chat completion, and after status 408, 429 or 5xx. Any other status is final.
    A cancelled request closes its connection. The settings of `Sampling` and `Requests` are its own; a conversation
    that waits for its next try counts as one that is under way.

    Several event loops may use one client, at the same time too. Each loop has its own connections and its own limit
    of concurrency.
    """

    urls: str | Sequence[str]
    """Base URLs of the servers, which all serve `model`; a URL without a path gets "/v1"."""
    model: str
    """Name of the model on the servers."""
    _: KW_ONLY
    api_key: str | None = field(default=None, repr=False)
    """API key for all servers; None takes FAPO_API_KEY, the file FAPO_API_KEY_FILE, OPENAI_API_KEY or "none", in this
    order. Answers and errors that repeat the key have "***" in its place."""
    retries: Natural = 4
    """Number of further tries after the first."""
    backoff: NonNegative = 0.5
    """Pause before the second try, in seconds, with jitter; it doubles for each further try, up to 30."""
    cooldown: NonNegative = 1.0
    """Rest of a server after its first failure, in seconds; it doubles for each further failure, up to 30."""
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of each request, verbatim, such as top_k or chat_template_kwargs."""
    logprobs_after: str = ""
    """Text before the verdict in a response: `token_choices` begin after its last occurrence. Empty: no log
    probabilities are requested. An answer without those that were requested is an error."""
    batch_size: ClassVar[int] = 1
    """Number of conversations in one call, for callers that ask in batches; servers form batches by themselves."""
    path: ClassVar[str] = "chat/completions"
    """Path of the requests after the base URL."""
    _other_names: set[str] = field(default_factory=set, init=False, repr=False)
    _sessions: dict[asyncio.AbstractEventLoop, tuple[list[Endpoint], asyncio.Semaphore]] = field(
        default_factory=dict, init=False, repr=False
    )

    def __post_init__(self) -> None:
        urls = [base_url(url) for url in ([self.urls] if isinstance(self.urls, str) else self.urls)]
        object.__setattr__(self, "urls", urls)
        if not self.urls:
            raise ConfigError("no server: urls is empty, give at least one base URL such as http://127.0.0.1:8000/v1")
        check_ranges(self, "ChatClient")
        check_extra_body(self.extra_body)
        key = self.api_key or key_from_environment()
        if not (key.isascii() and key.isprintable()):
            raise ConfigError("the API key has characters that no HTTP header can carry; look for a line break in it")
        object.__setattr__(self, "api_key", key)

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: everything but the connections, which belong to event loops of this process."""
        return vars(self) | {"_sessions": {}}

    @property
    def settings(self) -> dict[str, Any]:
        """Fields of a request besides model and messages, without those of None.

        They are the sampling settings, the request for log probabilities, and `extra_body`.
        `max_completion_tokens` in `extra_body` replaces `max_tokens`, which newer models of OpenAI refuse.
        """
        sampling = settings_of(Sampling, self)
        if self.logprobs_after:
            sampling |= {"logprobs": True, "top_logprobs": NUM_ALTERNATIVES}
        if "max_completion_tokens" in self.extra_body:
            del sampling["max_tokens"]
        return {name: value for name, value in (sampling | dict(self.extra_body)).items() if value is not None}

    async def __call__(self, conversations: Sequence[list[Message]]) -> list[Completion]:
        """Return one completion for each conversation, in order."""
        endpoints, slots = self._session()
        answers = [Completion()] * len(conversations)

        async def ask(i: int) -> None:
            answer = await self._complete(endpoints, slots, conversations, i)
            answers[i] = replace(answer, text=self._without_key(answer.text))

        await run_all(range(len(conversations)), ask, min(self.concurrency, len(conversations)))
        return answers

    def _without_key(self, text: str) -> str:
        """Replace the API key in a text; a key of fewer than 8 characters is a word, not a secret."""
        assert self.api_key
        return text.replace(self.api_key, "***") if len(self.api_key) >= 8 else text

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        endpoints, _ = self._sessions.pop(asyncio.get_running_loop(), ([], None))
        for endpoint in endpoints:
            await endpoint.session.close()

    def endpoints(self) -> list[Endpoint]:
        """Return the state of each server, as seen from the running event loop."""
        return self._session()[0]

    def _session(self) -> tuple[list[Endpoint], asyncio.Semaphore]:
        """Return the servers and the limit of the running event loop, and forget those of closed loops."""
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
        """Return the completion of one conversation, or an error when the deadline is over.

        The conversation is read only when its turn comes, since a lazy sequence may build it then.
        """
        errors: list[str] = []
        async with slots:
            try:
                async with asyncio.timeout(self.deadline):
                    return await self._retry(endpoints, conversations[index], errors)
            except TimeoutError:
                last = f"; before that: {errors[-1]}" if errors else ""
                return Completion(error=f"no answer within the deadline of {self.deadline:g} s{last}")

    async def _retry(self, endpoints: list[Endpoint], messages: list[Message], errors: list[str]) -> Completion:
        """Return the completion, or an error that is final; append the error of each failed try to `errors`."""
        try:
            body = self._body(messages)
        except UnicodeEncodeError as failure:
            return Completion(error=f"the conversation cannot be sent as UTF-8: {failure.reason}")
        tried: list[Endpoint] = []
        for attempt in range(self.retries + 1):
            if attempt:
                await asyncio.sleep(min(MAX_BACKOFF, self.backoff * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0))
            while wait := (endpoint := best_endpoint(endpoints, tried)).closed(time.monotonic()):
                if wait > MAX_RETRY_AFTER:
                    return Completion(error=f"the server asks for a pause of {wait:.0f} s, which is too long to wait")
                await asyncio.sleep(wait)
            tried.append(endpoint)
            endpoint.outstanding += 1
            try:
                async with asyncio.timeout(self.timeout):
                    answer = await self._request(endpoint.session, body, messages)
                endpoint.failures = 0
                return answer
            except TimeoutError as failure:
                connecting = isinstance(failure, aiohttp.ConnectionTimeoutError)
                errors.append(str(failure) if connecting else f"no answer within {self.timeout:g} s")
                endpoint.failed(self.cooldown)
            except Refused as refusal:
                errors.append(self._without_key(f"HTTP {refusal.status}: {refusal.message}")[:MAX_ERROR])
                if refusal.status not in (408, 429) and refusal.status < 500:
                    return Completion(error=errors[-1])
                endpoint.closed_until = max(endpoint.closed_until, time.monotonic() + refusal.pause)
                if refusal.status != 429:
                    endpoint.failed(self.cooldown)
            except (aiohttp.ClientError, NotACompletion, UnicodeError) as failure:  # UnicodeError: not a host name
                errors.append(self._without_key(_describe(failure))[:MAX_ERROR])
                endpoint.failed(self.cooldown)
            finally:
                endpoint.outstanding -= 1
        return Completion(error=f"{errors[-1]} (given up after {self.retries + 1} tries)")

    def _body(self, messages: list[Message]) -> bytes:
        """Return the body of the request as JSON; raise UnicodeEncodeError for a lone surrogate."""
        fields = {"model": self.model, "messages": messages, **self.settings}
        if isinstance(messages, Constrained):
            form = {"name": "answer", "strict": True, "schema": messages.schema}
            fields["response_format"] = {"type": "json_schema", "json_schema": form}
        return json.dumps(fields, ensure_ascii=False).encode()

    async def _request(self, session: aiohttp.ClientSession, body: bytes, messages: list[Message]) -> Completion:
        """Send one request; raise aiohttp.ClientError, Refused, NotACompletion, or UnicodeError for a bad host name."""
        start = time.perf_counter()
        async with session.post(self.path, data=body) as response:
            pieces = chunks(response, LOGPROBS_FACTOR if self.logprobs_after else 1)
            if not response.ok:
                pause = retry_after_seconds(response.headers.get("retry-after", ""))
                raise Refused(response.status, _error_message(await _text(pieces)), pause)
            try:
                answer = json.loads(await _text(pieces))
                completion = self._read(answer, messages)
                self._warn_of_other_name(answer.get("model"))
            except (ValueError, RecursionError) as failure:
                raise NotACompletion(f"the answer is not JSON: {failure}") from None
        return replace(completion, seconds=time.perf_counter() - start)

    def _read(self, answer: Any, _messages: list[Message]) -> Completion:
        """Return the completion in an answer; raise NotACompletion if there is none."""
        completion = _completion(answer)
        if not self.logprobs_after:
            return completion
        choices = served_choices(answer["choices"][0].get("logprobs"), self.logprobs_after)
        if choices is None:
            return replace(completion, error=NO_LOGPROBS)
        return replace(completion, token_choices=choices)

    def _warn_of_other_name(self, name: Any) -> None:
        """Log once that a server answers under another name; a name with a date or a path added is usual."""
        if not isinstance(name, str) or name in self._other_names or len(self._other_names) >= 10:
            return
        if name and self.model not in name and name not in self.model:
            self._other_names.add(name)
            logging.getLogger("fapo").warning("asked for model %r, a server answers as %.100r", self.model, name)


def key_from_environment() -> str:
    """Return the API key that the environment gives.

    Returns:
        FAPO_API_KEY, else the content of the file FAPO_API_KEY_FILE, else OPENAI_API_KEY, else "none".

    Raises:
        ConfigError: The file cannot be read, or it is empty.
    """
    if not (key := os.environ.get("FAPO_API_KEY")) and (file := os.environ.get("FAPO_API_KEY_FILE")):
        try:
            key = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as failure:
            raise ConfigError(f"FAPO_API_KEY_FILE: cannot read {file}: {failure}") from None
        if not key:
            raise ConfigError(f"FAPO_API_KEY_FILE: {file} is empty; it should hold the key and nothing else")
    return key or os.environ.get("OPENAI_API_KEY") or "none"


def _completion(answer: Any) -> Completion:
    """Return the completion in an answer, without reasoning in other fields; raise NotACompletion if there is none."""
    choices = answer.get("choices") if isinstance(answer, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    message = choice.get("message")
    text = message.get("content") or "" if isinstance(message, dict) else None
    if not isinstance(text, str):
        error = answer.get("error") if isinstance(answer, dict) else None
        raise NotACompletion(f"the answer is not a chat completion{f': {error}' if error else ''}")
    reason = choice.get("finish_reason")
    if reason in BROKEN_OFF:
        raise NotACompletion(f"the server broke off the answer (finish_reason: {reason})")
    error = "a filter of the server cut off the answer" if reason == FILTERED else ""
    written, read, cached = usage_numbers(answer.get("usage"))
    truncated = reason in LENGTH_LIMIT
    return Completion(text, written, error, truncated=truncated, prompt_tokens=read, cached_tokens=cached)


def usage_numbers(usage: Any) -> tuple[int, int, int]:
    """Return the tokens of the completion, of the prompt, and those of the prompt that were cached; 0 where unknown."""
    usage = usage if isinstance(usage, dict) else {}
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    numbers = usage.get("completion_tokens"), usage.get("prompt_tokens"), cached
    written, read, known = (n if isinstance(n, int) and 0 < n < MAX_TOKENS else 0 for n in numbers)
    return int(written), int(read), int(min(known, read))


async def _text(pieces: AsyncIterator[bytes]) -> str:
    """Return a whole body as text."""
    return b"".join([piece async for piece in pieces]).decode("utf-8", "replace")


def _error_message(page: str) -> str:
    """Return the error message in a body, or the whole body if it is not an error of an OpenAI-compatible server."""
    try:
        error = json.loads(page)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, TypeError, KeyError, RecursionError):
        return page


def _describe(failure: Exception) -> str:
    """Return a description of a failure for a message."""
    if isinstance(failure, aiohttp.ClientConnectorError):
        return f"no connection to {failure.host}:{failure.port}: {failure.__cause__ or failure.os_error}"
    return str(failure) or type(failure).__name__
