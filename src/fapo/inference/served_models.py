"""Ask a server which models it has."""

from __future__ import annotations

import asyncio
import functools
import json
from concurrent.futures import ThreadPoolExecutor

import aiohttp

from fapo.errors import EngineError
from fapo.inference.client import key_from_environment
from fapo.inference.endpoints import base_url
from fapo.inference.transport import UnreadableBody, chunks, open_session

TIMEOUT = 5.0
"""Time limit of the request, in seconds."""


@functools.cache
def served_models(url: str) -> tuple[str, ...]:
    """Return the names of the models that a server has (GET /models); it is asked once in a process.

    Args:
        url: Base URL of the server.

    Returns:
        The names, in the order of the server.

    Raises:
        ConfigError: The URL, the API key or a proxy cannot be used.
        EngineError: The server does not answer, or not with a list of models.
    """
    with ThreadPoolExecutor(1) as pool:  # the caller may be in an event loop
        return pool.submit(asyncio.run, _ask(base_url(url))).result()


async def _ask(url: str) -> tuple[str, ...]:
    """Return the names of the models at a base URL."""
    try:
        async with (
            asyncio.timeout(TIMEOUT),
            open_session(url, key_from_environment(), TIMEOUT) as session,
            session.get("models") as response,
        ):
            body = b"".join([chunk async for chunk in chunks(response)])
    except TimeoutError:
        raise EngineError(
            f"{url}: no answer within {TIMEOUT:g} seconds; start the server, or correct the URL"
        ) from None
    except (aiohttp.ClientError, UnreadableBody, UnicodeError) as failure:
        raise EngineError(f"{url}: no answer ({failure}); start the server, or correct the URL") from None
    if not response.ok:
        raise EngineError(f"{url}: answers HTTP {response.status}; set FAPO_API_KEY, or correct the URL")
    try:
        return tuple(str(model["id"]) for model in json.loads(body)["data"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise EngineError(f"{url}: no list of models at {url}/models; is it an OpenAI-compatible server?") from None
