"""Real servers with real models on 127.0.0.1."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.support.ports import free_port


@dataclass(frozen=True)
class ModelServer:
    """A running server of a model."""

    url: str
    """Base URL, which ends in /v1."""
    process: subprocess.Popen[bytes]
    """Process of the server."""
    log: Path
    """File with the output of the server."""

    def num_answered(self) -> int:
        """Return the number of chats answered so far."""
        return self.log.read_text(errors="replace").count('/v1/chat/completions HTTP/1.1" 200')


@contextmanager
def running(
    command: Callable[[int], list[str]], log: Path, cwd: Path | None = None, **environment: str
) -> Iterator[ModelServer]:
    """Start a server, yield it as soon as it answers GET /health, and stop it at the end of the block.

    Args:
        command: Function of a port that returns the command line.
        log: File for the output of the server.
        cwd: Folder in which the server starts.
        **environment: Additional environment variables.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", **environment}
    with log.open("wb") as file:
        server = subprocess.Popen(command(port), stdout=file, stderr=file, env=variables, cwd=cwd)
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
            if httpx.get(address, timeout=60).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    said = log.read_text(errors="replace")[-2000:]
    pytest.fail(f"the server did not start (exit code {server.poll()}):\n{said}")
