"""`fapo serve` in a process of its own, as a user starts it; the judge is a scripted server."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.chat_server import ChatServer, Reply, chat_server
from tests.support.command_line import fapo
from tests.support.ports import free_port
from tests.support.processes import Listener, start, toml, wait_for

pytestmark = pytest.mark.slow

ROW = {"prompt": "What is 1+1?", "label": "2", "response": "1+1=2\n\nSo \\boxed{2}."}


class Service:
    """A running `fapo serve` and what it has printed."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.url, self._listener = process, f"http://127.0.0.1:{port}", Listener(process)

    @property
    def log(self) -> str:
        return self._listener.said

    def started(self, num_workers: int = 1) -> bool:
        return self.log.count("Application startup complete") >= num_workers

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self._listener.finished()[0]


@contextmanager
def service(judge: ChatServer, *arguments: str, **environment: str) -> Iterator[Service]:
    port = free_port()
    named = ("--judge", judge.url, "--model", "m") if not any(a.endswith(".toml") for a in arguments) else ()
    process = start("serve", *arguments, *named, "--port", str(port), **environment)
    running = Service(process, port)
    try:
        wait_for(lambda: running.started() or process.poll() is not None)
        assert process.poll() is None, running.log
        yield running
    finally:
        process.terminate()  # not killed at once: its workers would go on
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        process.kill()
        process.wait()


def test_sigterm_completes_the_requests_under_way() -> None:
    with chat_server(Reply("\\boxed{-1}", delay=2.0)) as judge, service(judge) as running:
        answers: list[httpx.Response] = []
        request = threading.Thread(
            target=lambda: answers.append(httpx.post(f"{running.url}/slime", json=ROW, timeout=600))
        )
        request.start()
        wait_for(lambda: judge.under_way == 1)
        assert running.stop() in (0, -signal.SIGTERM)
        request.join(600)
        assert [(answer.status_code, answer.text) for answer in answers] == [(200, "1.0")]
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{running.url}/health")


def test_keys_and_tokens_are_not_in_the_log() -> None:
    secrets = {"FAPO_API_KEY": "sk-judge-key", "FAPO_SERVER_TOKEN": "sesame-token"}
    with chat_server(Reply("no", status=401)) as judge, service(judge, **secrets) as running:
        headers = {"authorization": "Bearer sesame-token"}
        answers = [httpx.post(f"{running.url}/slime", json=ROW, headers=headers, timeout=600)]
        answers += [httpx.post(f"{running.url}/slime", json=ROW, headers={"authorization": "Bearer sesame-"})]
        answers += [httpx.post(f"{running.url}/slime", content=b"{", headers=headers)]
        assert [answer.status_code for answer in answers] == [503, 401, 422]
        assert judge.api_keys[0] == "Bearer sk-judge-key"
        running.stop()
        for text in (running.log, *(answer.text for answer in answers)):
            assert not any(secret in text for secret in secrets.values())


def test_several_workers_share_the_cache_and_the_counters(tmp_path: Path) -> None:
    options = ("--workers", "2", "--cache", str(tmp_path / "cache.sqlite"))
    with chat_server(Reply("Step 0.\n\\boxed{0}")) as judge, service(judge, *options) as running:
        wait_for(lambda: running.started(2) or running.process.poll() is not None)
        for _ in range(12):  # each with a connection of its own, so that both workers answer
            assert httpx.post(f"{running.url}/slime", json=ROW, timeout=600).text == "0.0"
        assert len(judge.requests) == 1
        text = httpx.get(f"{running.url}/metrics").text
        found = re.search(r'fapo_requests_total\{door="/slime",status="200"\} (\S+)', text)
        assert found and float(found[1]) == 12


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the workers in /proc")
def test_rollouts_of_a_worker_that_died_are_no_longer_under_way() -> None:
    def died(url: str) -> None:
        with pytest.raises(httpx.TransportError):
            httpx.post(f"{url}/slime", json=ROW, timeout=600)

    with chat_server(Reply("\\boxed{-1}", delay=600)) as judge, service(judge, "--workers", "2") as running:
        wait_for(lambda: running.started(2) or running.process.poll() is not None)
        request = threading.Thread(target=died, args=(running.url,))
        request.start()
        wait_for(lambda: judge.under_way == 1)
        assert "fapo_rollouts_waiting 1.0" in httpx.get(f"{running.url}/metrics").text
        pid = running.process.pid
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(int(child), signal.SIGKILL)
        request.join(600)
        wait_for(lambda: running.started(4) or running.process.poll() is not None)
        assert "fapo_rollouts_waiting 0.0" in httpx.get(f"{running.url}/metrics").text


def test_a_config_names_reward_and_judge(tmp_path: Path) -> None:
    with chat_server(Reply("\\boxed{0}")) as judge:
        config = toml(tmp_path, tmp_path / "policy", judge.url)
        text = config.read_text(encoding="utf-8").replace('kind = "fapo"', 'kind = "fapo"\npenalty = 0.25')
        config.write_text(text, encoding="utf-8")
        with service(judge, str(config)) as running:
            assert httpx.post(f"{running.url}/slime", json=ROW, timeout=600).json() == 0.75
            assert judge.requests[0]["model"] == "judge"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either CONFIG"),
        (["run.toml", "--judge", "http://x/v1"], "give either CONFIG"),
        (["run.toml", "--votes", "3"], "--votes is for --judge"),
        (["run.toml", "--penalty", "0"], "--penalty is for --judge"),
        (["run.toml", "--checker", "exact"], "--checker is for --judge"),
        (["--judge", "http://x/v1", "--model", "m", "--checker", "algebra"], "checker 'algebra': choose math, choice"),
        (["--judge", "http://x/v1", "--model", "m", "--host", "0.0.0.0"], "FAPO_SERVER_TOKEN"),
        (["--judge", "http://x/v1", "--model", "m", "--host", "example.org"], "FAPO_SERVER_TOKEN"),
        (["--judge", "http://x/v1", "--model", "m", "--penalty", "-1"], "penalty"),
        (["--judge", "http://x/v1", "--model", "m", "--template", "none.txt"], "none.txt"),
        (["--judge", "http://x/v1", "--model", "m", "--workers", "2", "--port", "0"], "fixed --port"),
        (["--judge", "http://x/v1", "--model", "m", "--no-cache"], "leave out --cache instead"),
        (["missing.toml"], "missing.toml"),
    ],
)
def test_a_mistake_is_found_before_the_service_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[Any], message: str
) -> None:
    monkeypatch.delenv("FAPO_SERVER_TOKEN", raising=False)
    assert fapo(monkeypatch, "serve", *arguments) == 2
    assert message in capsys.readouterr().err.replace("\n", " ")
