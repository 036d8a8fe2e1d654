"""Workers that compare answers: deadlines, memory, threads, forks, signals."""

import asyncio
import contextlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fapo.config.schema import OutcomeReward
from fapo.errors import EngineError
from fapo.rewards.scorer import PolicyScorer
from fapo.rewards.verify import acheck_answers, check_answers, shutdown
from fapo.types import Problem, Rollout
from fapo.verl.reward import compute_score
from tests.support.checked_answers import ENDLESS, boxed, check, correct
from tests.support.processes import wait_for


@pytest.mark.slow
def test_a_runaway_answer_costs_only_itself():
    pairs = [(boxed(ENDLESS), "7"), (boxed("((10^9)!)!"), "7")]
    pairs += [(boxed(f"{i}(x+1)"), f"{i}x+{i}") for i in range(2, 22)]
    checks = check_answers(pairs, deadline=5.0)
    assert [found.correct for found in checks] == [False, False] + [True] * 20
    assert checks[0].status == "timeout" and "5 s" in checks[0].detail
    assert correct("x+x", "2x")


def test_memory_hungry_answer_is_survived():
    assert not check(boxed("2^{40000000000}"), "x+1", deadline=2.0).correct
    assert correct("x+x", "2x")


def test_a_system_that_allows_less_memory_changes_no_result():
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))\n"
        "from fapo.rewards.verify import check_answers; print(check_answers([(r'\\boxed{x+x}', '2x')])[0].correct)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout.split()) == (0, ["True"]), done.stderr


@pytest.mark.parametrize(
    ("program", "reason"),
    [("/no/such/python", "No such file"), (shutil.which("false"), "ended at its start with status 1")],
)
def test_an_answer_is_not_wrong_because_no_worker_can_start(program, reason, monkeypatch):
    """As where the process has no free file descriptors, or the machine no memory."""
    shutdown()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", program)
        found = check(boxed("x+x"), "2x")
        (scored,) = asyncio.run(PolicyScorer(OutcomeReward(), None)([Rollout(Problem("", "", "2x"), boxed("x+x"))]))
        with pytest.raises(EngineError, match="could not be checked"):
            asyncio.run(compute_score("data", boxed("x+x"), "2x", {}))
        shutdown()
    assert (found.correct, found.status, found.unscored, reason in found.detail) == (False, "error", True, True)
    assert scored.reward.value is None
    assert correct("x+x", "2x")


def test_from_many_threads():
    outcomes = {}

    def work(i):
        outcomes[i] = correct(f"x+{i}x", f"{i + 1}x")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2, 14)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=600)
    assert outcomes == dict.fromkeys(range(2, 14), True)


def test_cancelling_stops_the_comparison():
    async def run():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(acheck_answers([(boxed(ENDLESS), "7")], deadline=600.0), timeout=0.5)
        return (await acheck_answers([(boxed("x+y"), "y+x")]))[0]

    start = time.perf_counter()
    assert asyncio.run(run()).correct
    assert time.perf_counter() - start < 300


def test_pool_restarts_after_shutdown():
    shutdown()
    assert correct("a+b", "b+a")


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_works_in_a_forked_child():
    assert correct("a+b+c", "c+b+a")
    pid = os.fork()
    if pid == 0:
        os._exit(0 if correct("a+2b", "2b+a") and (shutdown() or True) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert correct("a+3b", "3b+a")


def check_in_a_daemonic_process() -> None:
    sys.exit(0 if correct("a+4b", "4b+a") else 1)


@pytest.mark.slow
def test_works_in_a_daemonic_process():
    process = multiprocessing.get_context("spawn").Process(target=check_in_a_daemonic_process, daemon=True)
    process.start()
    process.join(timeout=600)
    assert process.exitcode == 0


def workers_of(pid: int) -> list[int]:
    """Return the process ids of the workers that a process has started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"import serve" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


def has_ended(pid: int) -> bool:
    """Return whether a process has ended, also if its parent has not noticed yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


@pytest.mark.slow
@needs_proc
def test_a_worker_that_was_killed_is_replaced():
    shutdown()
    assert correct("a+5b", "5b+a")
    workers = workers_of(os.getpid())
    assert workers
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: all(map(has_ended, workers)))
    assert correct("a+6b", "6b+a")


@pytest.mark.slow
@needs_proc
def test_workers_end_soon_after_their_parent_was_killed():
    code = f"from fapo.rewards.verify import check_answers; check_answers([({boxed(ENDLESS)!r}, '7')], deadline=2.0)"
    parent = subprocess.Popen([sys.executable, "-c", code])
    wait_for(lambda: bool(workers_of(parent.pid)) or parent.poll() is not None)
    workers = workers_of(parent.pid)
    time.sleep(1.0)  # the comparison has begun by then, or not: they end in both cases
    parent.kill()
    parent.wait()
    assert workers
    wait_for(lambda: all(map(has_ended, workers)))


@pytest.mark.slow
def test_script_without_main_guard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from fapo.rewards.verify import check_answers\n"
        "print('started')\n"
        "print(check_answers([(r'\\boxed{x+x}', '2x')])[0].correct)\n",
        encoding="utf-8",
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout.split()) == (0, ["started", "True"]), done.stderr
