"""Start the server of transformers, `transformers serve`."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from pathlib import Path

from tests.support.model_server import ModelServer, running


def model_server(model: str, log: Path, cwd: Path | None = None) -> AbstractContextManager[ModelServer]:
    """Serve one model, at a path relative to `cwd`, on a free port until the block ends."""
    code = "from transformers.cli.transformers import main; main()"
    start = [sys.executable, "-c", code, "serve", model, "--host", "127.0.0.1", "--device", "cpu"]
    return running(lambda port: [*start, "--port", str(port)], log, cwd)
