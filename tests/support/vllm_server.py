"""A server on 127.0.0.1 with the endpoint of vLLM that TRL's rollout worker calls; it runs in a thread of the test."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass(eq=False)
class VLLMServer:
    """A running server with a record of its requests."""

    url: str = ""
    """Base URL, without a path."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of the requests in order of arrival."""


@contextmanager
def vllm_server(
    tokenizer: Any, write: Callable[[str, int], str], seconds_per_token: float = 0.0
) -> Iterator[VLLMServer]:
    """Serve `POST /v1/completions` on a free port until the block ends; any number of requests is answered at once.

    Args:
        tokenizer: Tokenizer of the model that trains.
        write: Function of the text of a prompt and the index of the request that returns the completion.
        seconds_per_token: Time that a completion takes, for each of its tokens.
    """
    seen, ready = VLLMServer(), threading.Event()
    loop, over = asyncio.new_event_loop(), asyncio.Event()

    async def complete(request: web.Request) -> web.Response:
        body = await request.json()
        index = len(seen.requests)
        seen.requests.append(body)
        text = write(tokenizer.decode(body["prompt"], skip_special_tokens=True), index)
        tokens = [*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id][: body["max_tokens"]]
        await asyncio.sleep(seconds_per_token * len(tokens))
        choice: dict[str, Any] = {"index": 0, "text": text}
        choice["finish_reason"] = "stop" if tokens[-1] == tokenizer.eos_token_id else "length"
        if body["return_token_ids"]:
            choice["token_ids"] = tokens
        if body["logprobs"] is not None:
            choice["logprobs"] = {"token_logprobs": [-0.5] * len(tokens)}
        return web.json_response({"object": "text_completion", "model": body["model"], "choices": [choice]})

    async def serve() -> None:
        app = web.Application()
        app.router.add_post("/v1/completions", complete)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        seen.url = f"http://{host}:{port}"
        ready.set()
        await over.wait()
        await runner.cleanup()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:  # at its end it cancels answers that nobody waits for
            runner.run(serve())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(600)
    try:
        yield seen
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()
