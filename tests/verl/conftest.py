"""Tests of the verl engine; `make test-verl` runs them in an environment with verl."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

HERE = Path(__file__).parent
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE.parents[1] / "src"), str(HERE)])
"""Ray's workers import what the tests import: `fapo`, and `cpu` in this folder."""
os.environ |= {"RAY_worker_register_timeout_seconds": "900", "RAY_prestart_worker_first_driver": "0"}

try:
    metadata.version("verl")
except metadata.PackageNotFoundError:
    pytest.exit("verl is not installed here; make test-verl sets up an environment that has it", returncode=2)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test in this folder the marker `verl`."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.verl)


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """Start Ray on this machine's CPUs. It gives up after 30 seconds; on a busy machine a second try is needed."""
    import ray

    for last in (False, False, True):
        try:
            ray.init(num_cpus=4, num_gpus=0, include_dashboard=False, log_to_driver=False)
            break
        except Exception as error:  # Ray raises plain exceptions
            if last or "timed out during startup" not in str(error):
                raise
            ray.shutdown()
    yield
    ray.shutdown()
