"""Record the versions and the hardware of the machine that a run was made on."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from typing import Any

_PACKAGES = ("fapo", "torch", "transformers", "trl", "accelerate", "peft", "datasets", "math-verify", "verl", "vllm")


def environment() -> dict[str, Any]:
    """Return the versions of Python and of the packages, the platform and the number of CPUs; no secrets."""
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
