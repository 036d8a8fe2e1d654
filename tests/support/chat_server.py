"""A scripted OpenAI-compatible server on 127.0.0.1 that runs in a thread of the test."""

from __future__ import annotations

import json
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What the server does with one request: answer, delay, or close the connection."""

    text: str = "ok"
    """Content of the completion, unless `body` is set."""
    finish_reason: str = "stop"
    """Reason why the completion ends."""
    model: str = ""
    """Name of the model in the answer; by default the name in the request."""
    logprobs: Any = None
    """Value of `logprobs` in the completion; None: the completion has no such field."""
    status: int = 200
    """HTTP status of the answer."""
    body: bytes | None = None
    """Bytes to send instead of a completion."""
    headers: dict[str, str] = field(default_factory=dict)
    """Additional headers of the response."""
    delay: float = 0.0
    """Seconds before the answer is sent."""
    drip: float = 0.0
    """Seconds between two bytes of the body; 0 sends all of them together."""
    close: bool = False
    """Whether to close the connection instead of answering."""


Script = Callable[[dict[str, Any], int], Reply]
"""Function of the body of a request and its index, counted from 0, that returns the reply."""


@dataclass(eq=False)
class ChatServer:
    """A running server with a record of its requests."""

    url: str
    """Base URL, which ends in /v1."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of the requests in order of arrival."""
    api_keys: list[str] = field(default_factory=list)
    """Authorization headers of the requests."""
    paths: list[str] = field(default_factory=list)
    """Paths of the requests."""
    clients: set[int] = field(default_factory=set)
    """Ports of the clients, one for each connection."""
    under_way: int = 0
    """Number of requests being answered now."""
    most_under_way: int = 0
    """Highest value of `under_way` so far."""
    connections: set[socket.socket] = field(default_factory=set)
    """Connections that are open now."""
    hang_ups: int = 0
    """Number of connections that a client closed while it waited for an answer."""

    def disconnect(self) -> None:
        """Close all connections, as a server does that has waited too long for a request."""
        for connection in list(self.connections):
            connection.shutdown(socket.SHUT_RDWR)


def completion(text: str, model: str = "m", finish_reason: str = "stop", logprobs: Any = None) -> bytes:
    """Return the body of a chat completion, in which each word counts as one token."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    if logprobs is not None:
        choice["logprobs"] = logprobs
    usage = {"prompt_tokens": 1, "completion_tokens": len(text.split()), "total_tokens": 1 + len(text.split())}
    body = {"id": "c", "object": "chat.completion", "created": 0, "model": model, "choices": [choice]}
    body["usage"] = usage
    return json.dumps(body).encode()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024  # with the default of 5, connections wait for seconds while many are opened


@contextmanager
def chat_server(script: Script | Reply | None = None, tls: ssl.SSLContext | None = None) -> Iterator[ChatServer]:
    """Serve on a free port until the block ends.

    Args:
        script: Function that returns the reply to each request, or one reply for all of them.
        tls: Context with a certificate, for HTTPS.
    """
    fixed = script if isinstance(script, Reply) else Reply()
    answer: Script = script if callable(script) else lambda body, index: fixed
    lock = threading.Lock()
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle(self) -> None:
            with lock:
                seen.connections.add(self.connection)
            super().handle()

        def finish(self) -> None:
            super().finish()
            self.server.shutdown_request(self.request)
            with lock:
                seen.connections.discard(self.connection)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                index = len(seen.requests)
                seen.requests.append(body)
                seen.paths.append(self.path)
                seen.api_keys.append(self.headers.get("authorization", ""))
                seen.clients.add(self.client_address[1])
                seen.under_way += 1
                seen.most_under_way = max(seen.most_under_way, seen.under_way)
            try:
                reply = answer(body, index)
                gone = bool(reply.delay) and self._gone(reply.delay)
            finally:
                with lock:
                    seen.under_way -= 1
            if gone or over.is_set() or reply.close:
                self.close_connection = True
                return
            self._send(reply, reply.model or str(body.get("model")))

        def _gone(self, delay: float) -> bool:
            """Wait for `delay` seconds and return whether the client closed the connection meanwhile."""
            end, closed = time.monotonic() + delay, select.poll()  # select.select ends at 1024 open files
            closed.register(self.connection, select.POLLIN)
            while (left := end - time.monotonic()) > 0 and not over.is_set():
                if closed.poll(1000 * min(left, 0.05)):
                    with lock:
                        seen.hang_ups += 1
                    return True
            return False

        def _send(self, reply: Reply, model: str) -> None:
            content = reply.body
            if content is None:
                content = completion(reply.text, model, reply.finish_reason, reply.logprobs)
            self.send_response(reply.status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                for start in range(0, len(content), 1 if reply.drip else max(1, len(content))):
                    self.wfile.write(content[start : start + 1] if reply.drip else content)
                    time.sleep(reply.drip)
            except (BrokenPipeError, ConnectionResetError):  # the client no longer waits
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    seen = ChatServer(f"http{'s' if tls else ''}://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        server.shutdown()
        server.server_close()
        thread.join()
