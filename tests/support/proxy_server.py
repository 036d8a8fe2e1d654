"""A forward proxy on 127.0.0.1 that runs in a thread of the test and records the hosts of the requests."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024  # with the default of 5, connections wait for seconds while many are opened


@contextmanager
def proxy_server() -> Iterator[tuple[str, list[str]]]:
    """Yield the address of the proxy and a list to which it adds the host of each request."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            target = urlsplit(self.path)
            asked.append(target.netloc)
            body = self.rfile.read(int(self.headers["content-length"]))
            server = http.client.HTTPConnection(target.netloc)
            server.request("POST", target.path, body, dict(self.headers))
            answer = server.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                self.send_header(name, value)
            self.end_headers()
            try:
                while chunk := answer.read(1 << 14):
                    self.wfile.write(chunk)
            except (BrokenPipeError, ConnectionResetError):  # the client stopped reading
                pass
            server.close()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = _Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
