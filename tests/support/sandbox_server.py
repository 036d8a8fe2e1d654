"""A server that speaks as SandboxFusion does, and runs programs in processes of their own.

It is for the programs of these tests. It limits their time and nothing else, so it is no sandbox.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(eq=False)
class SandboxServer:
    """A running server with a record of its requests."""

    url: str
    """Address for programs."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of the requests in order of arrival."""
    statuses: list[int] = field(default_factory=list)
    """HTTP statuses of the next answers; a request beyond them is answered."""
    down: bool = False
    """Whether programs are not run: the answer is then an error of the sandbox."""


def run(body: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to a request."""
    limit, code = body["run_timeout"], body["code"]
    try:
        compile(code, "main.py", "exec")
        command = [sys.executable, "-I", "-c", code]
        done = subprocess.run(command, input=body["stdin"] or "", capture_output=True, text=True, timeout=limit)
    except SyntaxError as error:  # Python has no compilation: a wrong program fails when it runs
        result = {"status": "Finished", "return_code": 1, "stdout": "", "stderr": str(error), "execution_time": 0.0}
    except subprocess.TimeoutExpired:
        result = {
            "status": "TimeLimitExceeded",
            "return_code": None,
            "stdout": "",
            "stderr": "",
            "execution_time": limit,
        }
    else:
        result = {"status": "Finished", "return_code": done.returncode, "stdout": done.stdout, "stderr": done.stderr}
    status = "Success" if result["status"] == "Finished" and not result["return_code"] else "Failed"
    return {"status": status, "message": "", "compile_result": None, "run_result": result, "files": {}}


@contextmanager
def sandbox_server() -> Iterator[SandboxServer]:
    """Serve on a free port until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            seen.requests.append(body)
            status = seen.statuses.pop(0) if seen.statuses else 200
            answer = {"status": "SandboxError", "message": "no runner is free"} if seen.down else run(body)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    seen = SandboxServer(f"http://127.0.0.1:{server.server_address[1]}/run_code")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
