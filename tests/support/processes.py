"""Start fapo in a new process, as a user does, and write files for it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fapo.data.jsonl import write_jsonl
from tests.support.paths import SOURCE

ROW: dict[str, Any] = {"problem": "What is 1+1?", "reference": "2", "response": "1+1=2\n\nSo \\boxed{2}."}


def start(*arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    """Start `fapo ARGUMENTS` in a new process that receives Ctrl-C."""
    command = [sys.executable, "-m", "fapo.cli", *map(str, arguments)]
    known = {**os.environ, "PYTHONPATH": str(SOURCE), "COLUMNS": "200", "OMP_NUM_THREADS": "1", **environment}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        command, **pipes, env=known, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None
    )


def finished(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for a process and return its exit code and its messages on stderr."""
    said = process.communicate(timeout=600)[1]
    return process.returncode, said


def imported_packages(*arguments: str | Path) -> tuple[set[str], str]:
    """Run Python with these arguments; return the packages that it imports, and what it prints."""
    command = [sys.executable, "-X", "importtime", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "fapo" in imported
    return imported, done.stdout


class Listener:
    """Reader of what a process prints to stderr while it runs."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Start to read; nobody else may read from the process afterwards."""
        self.process, self.said = process, ""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self.said += line

    def wait_for(self, text: str) -> None:
        """Return as soon as the process has printed a text; fail if it ends without it."""
        wait_for(lambda: text in self.said or self.process.poll() is not None)
        if self.process.poll() is not None:
            self._thread.join(600)
        assert text in self.said, self.said

    def finished(self) -> tuple[int, str]:
        """Wait for the process and return its exit code and all its messages."""
        code = self.process.wait(600)
        self._thread.join(600)
        return code, self.said


def interrupt_twice(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Press Ctrl-C, and again when the process says that this stops it at once; return exit code and messages.

    Two signals in a row could arrive as one.
    """
    listener = Listener(process)
    process.send_signal(signal.SIGINT)
    listener.wait_for("Ctrl-C again stops at once")
    process.send_signal(signal.SIGINT)
    return listener.finished()


def num_cached(path: Path) -> int:
    """Return the number of answers in a cache; 0 if another process has not created it yet."""
    if not path.exists():
        return 0
    with contextlib.closing(sqlite3.connect(path)) as connection, contextlib.suppress(sqlite3.OperationalError):
        return int(connection.execute("SELECT count(*) FROM answers").fetchone()[0])
    return 0


def wait_for(reached: Callable[[], bool], seconds: float = 600) -> None:
    """Return as soon as a condition holds; fail when it does not hold within the time, which no machine needs."""
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, "never happened"
        time.sleep(0.02)


def rows_to_judge(path: Path, num: int) -> Path:
    """Write a file with solutions of different problems for `fapo judge` and return its path."""
    write_jsonl(path, [ROW | {"id": i, "problem": f"What is 1+1? ({i})"} for i in range(num)])
    return path


def toml(path: Path, policy: Path, url: str, **judge: Any) -> Path:
    """Write the config of a FAPO run of two steps with a served judge and return its path."""
    tables: dict[str, Any] = {
        "model": {"path": str(policy)},
        "data": {"train": "miniature:train", "limit": 64},
        "rollout": {"max_tokens": 24, "num_prompts": 4, "group_size": 4},
        "reward": {"kind": "fapo"},
        "judge": {"kind": "served", "urls": [url], "model": "judge", "template": "compact", **judge},
        "optim": {"steps": 2, "learning_rate": 1e-3, "warmup_steps": 0},
        "validation": {"every": 2, "save_every": 1},
    }
    lines = ['name = "run"', 'task = "policy"', f"output = {json.dumps(str(path))}"]
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())]
    path.mkdir(exist_ok=True)
    (path / "run.toml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path / "run.toml"
