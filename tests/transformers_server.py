"""`transformers serve`, a real server with a real model on 127.0.0.1, for tests of whatever asks one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest


@dataclass(frozen=True)
class ModelServer:
    """A running server."""

    url: str
    """Its base URL."""
    process: subprocess.Popen[bytes]
    """The server itself."""
    log: Path
    """What it writes."""

    def num_answered(self) -> int:
        """Chats answered so far."""
        return self.log.read_text(errors="replace").count('/v1/chat/completions HTTP/1.1" 200')


@contextmanager
def model_server(model: str, log: Path, cwd: Path | None = None) -> Iterator[ModelServer]:
    """Serve one model, by a path from `cwd`, on a free port until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    code = "from transformers.cli.transformers import main; main()"
    options = ["serve", model, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with log.open("wb") as file:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-c", code, *options]
        server = subprocess.Popen(command, stdout=file, stderr=file, env=environment, cwd=cwd)
        try:
            _wait_for(server, f"{url}/health", log)
            yield ModelServer(f"{url}/v1", server, log)
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _wait_for(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    end = time.monotonic() + 900
    while time.monotonic() < end and server.poll() is None:
        try:
            if httpx.get(address, timeout=5).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    said = log.read_text(errors="replace")[-2000:]
    pytest.fail(f"the server did not start (exit code {server.poll()}):\n{said}")
