"""Versions and hardware of the machine that a run was made on."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from typing import Any

_PACKAGES = ("fapo", "torch", "transformers", "trl", "accelerate", "datasets", "math-verify", "verl", "vllm")


def environment() -> dict[str, Any]:
    """Versions and machine, for the record; nothing from the environment variables."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "versions": versions,
    }
