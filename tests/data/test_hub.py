"""The Hugging Face Hub, as a server on this machine, and without network."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from fapo.data import hub
from tests.support.json_server import json_server

NOTHING = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what other tests have found, and leave the environment as it was."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    hub.request_failure.cache_clear()
    yield
    hub.request_failure.cache_clear()


def test_a_hub_that_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    with json_server({"/": "", "/api/models/owner/name": "{}"}) as url:
        monkeypatch.setenv("HF_ENDPOINT", url)
        hub.use_cache_without_network()
        assert "HF_HUB_OFFLINE" not in os.environ
        assert hub.why_not_on_hub("models", "owner/name") == ""
        assert hub.why_not_on_hub("datasets", "owner/name").startswith("not on the Hugging Face Hub, or private")


def test_without_network_only_the_cache_is_used(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setenv("HF_ENDPOINT", NOTHING)
    hub.use_cache_without_network()
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert "cannot be reached" in caplog.text and "only its cache" in caplog.text
    assert "cannot be reached" in hub.why_not_on_hub("models", "owner/name")


@pytest.mark.slow
def test_without_network_a_data_set_of_the_hub_fails_in_seconds() -> None:
    pytest.importorskip("datasets")
    code = (
        "import datasets, time; from fapo.data.problems import read_problems; start = time.monotonic()\n"
        "try: read_problems('owner/nothing')\n"
        "finally: print(time.monotonic() - start)"
    )
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"} | {
        "HF_ENDPOINT": NOTHING
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, env=environment)
    assert float(done.stdout) < 60, "it was more than three minutes"
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(
        "fapo.errors.DataError: owner/nothing: no such file, and the Hugging Face Hub cannot be reached"
    )
