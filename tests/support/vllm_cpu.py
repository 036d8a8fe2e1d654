"""vLLM on the CPU, with the arithmetic of the model in this process, so that greedy answers and scores are equal."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.support.model_server import ModelServer, running

VLLM = Path(sys.executable).with_name("vllm")
"""Program of vLLM beside the Python that runs the tests."""
MARKS = [pytest.mark.vllm, pytest.mark.skipif(not VLLM.exists(), reason="needs vLLM: make test-vllm")]
"""Marks of tests that need vLLM."""
SERVER_MARKS = [*MARKS, pytest.mark.server]
"""Marks of tests that start a server of vLLM by themselves."""
ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_CI_ENV": "1", "VLLM_NO_USAGE_STATS": "1"}
"""Environment variables of vLLM on the CPU; the space is in GB."""


def vllm_on_cpu(model: str, log: Path, cwd: Path, *options: str) -> AbstractContextManager[ModelServer]:
    """Serve a model with a context of 512 tokens until the block ends.

    Args:
        model: Folder of the model, as a path from `cwd`.
        log: File for the output of the server.
        cwd: Folder in which the server starts.
        *options: Further options of `vllm serve`.

    Returns:
        The running server.
    """
    start = [
        *(str(VLLM), "serve", model, "--host", "127.0.0.1", "--dtype", "float32", "--enforce-eager"),
        *("--max-model-len", "512", "--max-num-seqs", "16", *options),
    ]
    return running(lambda port: [*start, "--port", str(port)], log, cwd, **ENVIRONMENT)
