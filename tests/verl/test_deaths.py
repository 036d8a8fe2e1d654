"""SIGKILL of Ray's workers during a run: the run ends with a message, and continues from its checkpoint."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.support.verl_runs import GROUP, PROMPTS, finish, rows, run, start

SMALL = ("judge.kind=oracle", "data.validation=")


def workers_of(pid: int) -> dict[int, str]:
    """Return the pids and names of Ray's workers among the descendants of a process."""
    found = {}
    for process in psutil.Process(pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended meanwhile
            found[process.pid] = " ".join(process.cmdline())
    return {child: name for child, name in found.items() if name.startswith("ray::")}


@pytest.mark.parametrize("kind", ["ray::WorkerDict", "ray::RewardLoopWorker"])
def test_a_run_continues_from_its_checkpoint_after_a_worker_was_killed(kind: str, tmp_path: Path) -> None:
    process, saved = start(tmp_path, *SMALL, steps=50), tmp_path / "run/checkpoints/latest_checkpointed_iteration.txt"
    deadline = time.monotonic() + 900
    while process.poll() is None and not saved.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = workers_of(process.pid)
    killed = [pid for pid, name in workers.items() if name.startswith(kind)]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    killed_at = time.monotonic()
    code, output = finish(process)
    took = time.monotonic() - killed_at
    assert killed, f"no {kind} among {sorted(workers.values())}\n{output[-3000:]}"
    assert code == 2, output[-3000:]
    assert took < 300, f"it ended after {took:.0f} s"
    assert "fapo: verl has stopped" in output
    assert "--resume" in output
    step = int(saved.read_text())
    run(tmp_path, *SMALL, "--resume", steps=step + 1)
    counts = Counter(row["step"] for row in rows(tmp_path, "rollouts"))
    assert counts == dict.fromkeys(range(1, step + 2), PROMPTS * GROUP), "no rollout is lost or recorded twice"
