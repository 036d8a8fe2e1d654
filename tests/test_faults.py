"""Real faults of judges, disks, caches, signals and clocks. The table of faults is in docs/reliability.md."""

from __future__ import annotations

import ast
import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fapo.inference.response_cache
import fapo.inference.transport
from fapo.cli import main as cli
from fapo.config.reader import load
from fapo.data.jsonl import read_jsonl
from fapo.errors import ConfigError, DataError
from fapo.inference.client import MAX_ERROR, ChatClient
from fapo.inference.response_cache import CachedModel, CacheKey, ResponseCache
from fapo.judge.genrm import GenRM
from fapo.judge.template import load_template
from fapo.training.run_folder import RunFolder
from fapo.training.run_lock import disk_full_as_oserror, lock_folder
from fapo.types import Completion, Problem, Rollout, Verdict
from tests.support.chat_server import Reply, chat_server, completion
from tests.support.paths import ROOT, SOURCE
from tests.support.processes import finished, interrupt_twice, num_cached, rows_to_judge, start, toml, wait_for

PATIENT = {"backoff": 0.01, "cooldown": 0.05, "timeout": 600.0}


def solutions(num: int) -> list[Rollout]:
    """Return different solutions with the right answer."""
    return [
        Rollout(Problem("p", "What is 1+1?", "2"), f"It is {i} less {i} and 2.\n\n\\boxed{{2}}") for i in range(num)
    ]


def judged(
    urls: list[str], rollouts: list[Rollout], cache: ResponseCache | None = None, **options: Any
) -> list[Verdict]:
    async def run() -> list[Verdict]:
        client = ChatClient(urls, "judge", **PATIENT | options)
        complete = CachedModel(client, cache, model="judge") if cache is not None else client
        try:
            return await GenRM(load_template("compact"), complete)(rollouts)
        finally:
            await client.aclose()

    return asyncio.run(run())


# --- judges -----------------------------------------------------------------------------------------------------------

TROUBLES = {
    "429": Reply(status=429, body=b"{}", headers={"retry-after": "0"}),
    "500": Reply(status=500, body=b"oops"),
    "hangs up": Reply(close=True),
    "half an answer": Reply(body=completion("\\boxed{-1}")[:60]),
    "broken off": Reply("If step 0 were wrong: \\boxed{0}. Let me", finish_reason="abort"),
    "garbage": Reply(body=b"\x00\xff<html>"),
    "10 MB": Reply(body=completion("\\boxed{-1} " * 1_000_000)),
    "packed": Reply(body=b"\x1f\x8b\x08", headers={"content-encoding": "gzip"}),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_no_verdict_is_lost_or_doubled_while_a_judge_has_trouble(name: str, tmp_path: Path) -> None:
    """One request in three fails. Each question still gets one verdict, and the cache holds it once."""
    rollouts, cache = solutions(12), ResponseCache(tmp_path / "cache.sqlite")
    with chat_server(lambda body, i: TROUBLES[name] if i % 3 == 0 else Reply("\\boxed{1}")) as server:
        verdicts = judged([server.url], rollouts, cache, retries=20)
        num_requests = len(server.requests)
        assert judged([server.url], rollouts, cache) == verdicts, "the second time they come from the cache"
        assert len(server.requests) == num_requests
    assert [v.error_step for v in verdicts] == [1] * 12
    assert num_requests == 12 + (num_requests + 2) // 3
    assert len(cache) == 12
    cache.close()


@pytest.mark.parametrize("name", [name for name in TROUBLES if name != "429"])
def test_a_judge_that_only_has_trouble_is_a_failure_with_a_reason(name: str) -> None:
    with chat_server(TROUBLES[name]) as server:
        (verdict,) = judged([server.url], solutions(1), retries=1)
    assert (verdict.status, verdict.flawed) == ("failed", None)
    assert "given up after 2 tries" in verdict.reason


def test_reading_of_an_endless_answer_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fapo.inference.transport, "MAX_ANSWER", 1 << 16)
    with chat_server(Reply("and so on\n" * 30_000)) as server:
        (verdict,) = judged([server.url], solutions(1), retries=0)
    assert (verdict.status, "the answer is longer than" in verdict.reason) == ("failed", True), verdict.reason


def test_a_page_of_error_text_is_cut() -> None:
    with chat_server(Reply(status=400, body=b'{"error": {"message": "' + b"x" * 100_000 + b'"}}')) as server:
        (verdict,) = judged([server.url], solutions(1))
    assert len(verdict.reason) == MAX_ERROR


def test_an_answer_of_another_model_is_warned_about_once(caplog: pytest.LogCaptureFixture) -> None:
    with chat_server(Reply("\\boxed{1}", model="somebody-else")) as server:
        assert [v.error_step for v in judged([server.url], solutions(3))] == [1] * 3
    assert [r.getMessage() for r in caplog.records if r.name == "fapo"] == [
        "asked for model 'judge', a server answers as 'somebody-else'"
    ]
    caplog.clear()
    with chat_server(Reply("\\boxed{1}", model="/models/judge-2026-01-01")) as server:
        judged([server.url], solutions(1))
    assert [r for r in caplog.records if r.name == "fapo"] == []


REPLICA = """
import time
from tests.support.chat_server import Reply, chat_server
with chat_server(lambda body, i: Reply("\\\\boxed{1}", delay=0.05)) as server:
    print(server.url, flush=True)
    time.sleep(600)
"""


def test_one_replica_of_four_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", REPLICA]
    replicas = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(4)]
    try:
        urls = [process.stdout.readline().strip() for process in replicas if process.stdout]
        cache = ResponseCache(tmp_path / "cache.sqlite")
        rollouts = solutions(200)

        async def run() -> list[Verdict]:
            client = ChatClient(urls, "judge", **PATIENT, concurrency=8)
            task = asyncio.create_task(
                GenRM(load_template("compact"), CachedModel(client, cache, model="judge"))(rollouts)
            )
            while len(cache) < 40:
                await asyncio.sleep(0.01)
            replicas[1].kill()
            verdicts = await task
            await client.aclose()
            return verdicts

        assert [v.error_step for v in asyncio.run(run())] == [1] * 200
        assert len(cache) == 200, "no verdict is lost or stored twice"
        cache.close()
    finally:
        for process in replicas:
            process.kill()
            process.wait()


# --- disks ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield the folder of a file system of 512 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True) if sys.platform == "linux" else None
    if done is None or done.returncode:
        pytest.skip(f"only root on Linux can mount a small file system: {done and done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_cache_keeps_its_answers_when_the_disk_is_full(small_disk: Path) -> None:
    cache = ResponseCache(small_disk / "cache.sqlite")
    with pytest.raises(DataError, match=r"cache cannot be used: .*(?:full|I/O).*free it or give another path"):
        for i in range(10_000):
            cache.add([(CacheKey(str(i), "m", "{}", 0), Completion("word " * 200))])
            num = i + 1
    assert num > 10
    assert all(cache.find(CacheKey(str(i), "m", "{}", 0)) for i in range(num))
    (small_disk / "cache.sqlite").rename(small_disk / "cache.sqlite")
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    cache.add([(CacheKey("more", "m", "{}", 0), Completion("there is space again"))])
    cache.close()
    cache = ResponseCache(small_disk / "cache.sqlite")
    assert len(cache) == num + 1
    cache.close()


@pytest.mark.slow
def test_an_audit_that_a_full_disk_ended_can_be_continued(small_disk: Path, tmp_path: Path) -> None:
    path, out = rows_to_judge(tmp_path / "in.jsonl", 300), small_disk / "out.jsonl"
    with chat_server(Reply("word " * 400 + "\\boxed{-1}")) as server:
        judge = ("--judge", server.url, "--model", "m", "--template", "compact", "--cache", tmp_path / "cache.sqlite")
        command = ("judge", path, *judge, "--out", out, "--quiet")
        code, said = finished(start(*command))
        assert (code, "No space left on device" in said, "Traceback" in said) == (2, True, False), said
        assert not out.exists()
        num_requests = len(server.requests)
        subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
        code, said = finished(start(*command))
        assert code == 0, said
        assert len(server.requests) <= 300 + 4 * 64
        assert num_requests > 50
    assert [row["status"] for row in read_jsonl(out)] == ["ok"] * 300


def test_errors_of_torch_and_safetensors_on_a_full_disk_become_that_of_the_system(small_disk: Path) -> None:
    import numpy as np
    import torch
    from safetensors.numpy import save_file

    for write in (
        lambda: torch.save(torch.zeros(1_000_000), small_disk / "a.pt"),
        lambda: save_file({"a": np.zeros(1_000_000)}, small_disk / "a.safetensors"),
    ):
        with pytest.raises(OSError, match="No space left on device") as caught, disk_full_as_oserror(small_disk):
            write()
        assert caught.value.filename == str(small_disk)
        assert caught.value.errno in cli.REFUSALS
    with pytest.raises(RuntimeError, match="something else"), disk_full_as_oserror(small_disk):
        raise RuntimeError("something else")


# --- caches ---------------------------------------------------------------------------------------------------------


def test_a_locked_cache_is_an_error_after_a_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ResponseCache(tmp_path / "cache.sqlite").close()
    other = sqlite3.connect(tmp_path / "cache.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(fapo.inference.response_cache, "LOCK_TIMEOUT", 0.3)
    cache = ResponseCache(tmp_path / "cache.sqlite")
    question = CacheKey("q", "m", "{}", 0)
    with pytest.raises(DataError, match=r"cache cannot be used: database is locked; free it or give another path"):
        cache.add([(question, Completion("x"))])
    other.execute("COMMIT")
    other.close()
    cache.add([(question, Completion("x"))])
    assert len(cache) == 1
    cache.close()


def test_a_cache_damaged_while_in_use_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    cache = ResponseCache(path)
    for i in range(300):
        cache.add([(CacheKey(str(i), "m", "{}", 0), Completion("word " * 200))])
    cache.close()
    cache = ResponseCache(path)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 200_000)
    with pytest.raises(DataError, match=r"no response cache, or a damaged one .*move it away to ask the model again"):
        for i in range(300):
            cache.find(CacheKey(str(i), "m", "{}", 0))
            cache.add([(CacheKey(f"new {i}", "m", "{}", 0), Completion("x"))])


def test_two_audits_share_a_cache(tmp_path: Path) -> None:
    path = rows_to_judge(tmp_path / "in.jsonl", 40)
    with chat_server(lambda body, i: Reply("\\boxed{-1}", delay=0.05)) as server:
        common = ("judge", path, "--judge", server.url, "--model", "m", "--quiet", "--concurrency", "4")
        cache = ("--cache", tmp_path / "cache.sqlite")
        both = [start(*common, *cache, "--out", tmp_path / f"{name}.jsonl") for name in "ab"]
        assert [finished(process)[0] for process in both] == [0, 0]
        num_requests = len(server.requests)
        code, said = finished(start(*common, *cache, "--out", tmp_path / "c.jsonl"))
        assert (code, len(server.requests)) == (0, num_requests), said
    assert 40 <= num_requests <= 80
    outputs = [(tmp_path / f"{name}.jsonl").read_bytes() for name in "abc"]
    assert outputs[0] == outputs[1] == outputs[2]


# --- signals ----------------------------------------------------------------------------------------------------------


def test_control_c_twice_ends_an_audit_at_once(tmp_path: Path) -> None:
    path, out = rows_to_judge(tmp_path / "in.jsonl", 80), tmp_path / "out.jsonl"
    kept = out.with_suffix(".cache.sqlite")
    with chat_server(lambda body, i: Reply("\\boxed{-1}", delay=0 if i < 20 else 600)) as server:
        process = start("judge", path, "--judge", server.url, "--model", "m", "--out", out, "--quiet")
        wait_for(lambda: num_cached(kept) == 20 or process.poll() is not None)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        time.sleep(0.03)  # the second signal comes while it stops
        process.send_signal(signal.SIGINT)
        code, said = finished(process)
        assert time.monotonic() - began < 300, "it ends long before the judge answers"
    assert code in (130, -signal.SIGINT), "a signal during shutdown kills Python itself; shells report that as 130, too"
    assert "Traceback" not in said, said
    assert not out.exists()
    assert num_cached(kept) == 20


# --- clocks -----------------------------------------------------------------------------------------------------------


def test_a_clock_that_jumps_changes_no_deadline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    honest, wild = time.time, random.Random(0)
    monkeypatch.setattr(time, "time", lambda: honest() + wild.choice((-1, 1)) * 1e7)
    busy = Reply(status=429, body=b"{}", headers={"retry-after": "1"})
    with chat_server(lambda body, i: busy if i == 0 else Reply("\\boxed{1}")) as server:
        began = time.monotonic()
        assert [v.error_step for v in judged([server.url], solutions(4), deadline=300.0)] == [1] * 4
        assert 0.9 <= time.monotonic() - began < 300
    with chat_server(Reply(delay=600)) as server:
        began = time.monotonic()
        (verdict,) = judged([server.url], solutions(1), deadline=0.5)
        assert time.monotonic() - began < 300
    assert "no answer within the deadline of 0.5 s" in verdict.reason


def test_only_a_retry_after_date_is_compared_with_the_time_of_day() -> None:
    """Every other duration is measured by a clock that never jumps."""
    found = []
    for path in SOURCE.rglob("*.py"):
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        found += [path.stem for call in calls if ast.unparse(call.func) == "time.time"]
    assert found == ["endpoints"]


# --- runs -------------------------------------------------------------------------------------------------------------


HOLDER = """
import sys, time
from pathlib import Path
from fapo.training.run_lock import lock_folder
lock_folder(Path(sys.argv[1]))
print("taken", flush=True)
time.sleep(600)
"""


def test_a_run_folder_belongs_to_one_process_until_it_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "taken\n"
        with pytest.raises(ConfigError, match="another process is training here; wait for it, or choose another name"):
            lock_folder(tmp_path)
        holder.kill()
    lock_folder(tmp_path)
    lock_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_refuses_a_second_training_and_resumes_after_control_c_with_a_judge_elsewhere(
    tiny_policy: Path, tmp_path: Path
) -> None:
    with chat_server(Reply("\\boxed{-1}", delay=600)) as server:
        file = toml(tmp_path / "runs", tiny_policy, server.url, all=True)
        first = start("train", file, "--quiet")
        wait_for(lambda: bool(server.requests) or first.poll() is not None)
        code, said = finished(start("train", file, "--quiet", "--resume"))
        assert (code, "another process is training here" in said, "Traceback" in said) == (2, True, False), said
        assert first.poll() is None
        code, said = interrupt_twice(first)
        assert (code, "Traceback" in said) == (130, False), said
        assert not (tmp_path / "runs" / "run" / "model").exists()
    with chat_server(Reply("\\boxed{-1}")) as server:
        file = toml(tmp_path / "runs", tiny_policy, server.url, all=True)
        code, said = finished(start("train", file, "--quiet", "--resume"))
    assert code == 0, said  # the judge has another address now
    assert (tmp_path / "runs" / "run" / "model").is_dir()


def test_a_full_disk_ends_a_training_with_a_message(small_disk: Path, tiny_policy: Path) -> None:
    with chat_server(Reply("\\boxed{-1}")) as server:
        file = toml(small_disk, tiny_policy, server.url)
        code, said = finished(start("train", file, "--quiet"))
        assert (code, "Traceback" in said) == (2, False), said
        assert "space" in said
        subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
        code, said = finished(start("train", file, "--quiet", "--resume"))
        assert code == 0, said
    assert [row["step"] for row in read_jsonl(small_disk / "run" / "metrics.jsonl")] == [1, 2]


def test_a_run_of_an_older_version_resumes_with_a_judge_at_another_address(tmp_path: Path) -> None:
    file = toml(tmp_path, tmp_path, "http://first/v1")
    known = RunFolder(load(file), resume=False).path / "config.json"
    stored = json.loads(known.read_text())
    for table, key in (("judge", "min_words"), ("judge", "canaries"), ("reward", "overlong_buffer")):
        del stored[table][key]
    known.write_text(json.dumps(stored))
    RunFolder(load(file, ['judge.urls=["http://second/v1"]', "judge.timeout=5.0"]), resume=True)
    with pytest.raises(ConfigError, match=r"cannot resume, the config differs in judge"):
        RunFolder(load(file, ["judge.temperature=0.5"]), resume=True)
