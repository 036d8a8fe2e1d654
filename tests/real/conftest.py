"""Weights of two small models, which `make test-real` has downloaded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

VARIABLE = "FAPO_TEST_WEIGHTS"
"""Environment variable with the folder of the GGUF files, which `experiments.real_model.weights` writes."""


@pytest.fixture(scope="session")
def weights() -> Path:
    """Return the folder with smollm2.gguf and qwen2.5-coder-0.5b.gguf."""
    folder = Path(os.environ[VARIABLE])
    assert {"smollm2.gguf", "qwen2.5-coder-0.5b.gguf"} <= {file.name for file in folder.iterdir()}
    return folder
