"""Worker processes that compare final answers by computer algebra, each comparison within a deadline.

Computer algebra may never end, or use all memory. Each worker is therefore a plain Python process with bounded memory,
which ends itself at the deadline. Comparisons can be submitted from any thread, inside a running event loop, in a
daemonic process and after a fork. Workers do not import the `__main__` of the caller, so scripts need no guard.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import math
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from queue import SimpleQueue

from fapo.data.final_answers import decide

MAX_WORKERS = 8
"""Maximum number of worker processes; their number is not above that of the processors."""
WORKER_MEMORY = 4 << 30
"""Address space of one worker, in bytes; less where the system allows less."""
TASKS_PER_WORKER = 2000
"""Number of comparisons after which a worker is replaced, so that its caches do not grow without limit."""
START_SECONDS = 60.0
"""Seconds that workers may take to start before a comparison counts as timed out."""

# --- In the worker process -------------------------------------------------------------------------------------------


def serve(file_descriptor: int) -> None:
    """Answer comparisons until the other end of the connection closes.

    A timer signal ends the process at the deadline, at any point of the comparison, also if its parent was killed.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    _, allowed = resource.getrlimit(resource.RLIMIT_AS)  # a batch system may allow less
    memory = WORKER_MEMORY if allowed == resource.RLIM_INFINITY else min(WORKER_MEMORY, allowed)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    logging.disable(logging.CRITICAL)
    with contextlib.suppress(ImportError):  # each comparison reports a missing library
        decide("x+x", "2x", algebra=True)  # the first one takes a second for imports, which no deadline should include
    with Connection(file_descriptor) as connection, contextlib.suppress(EOFError, OSError):
        connection.send_bytes(b"started")
        while True:
            answer, reference, deadline = json.loads(connection.recv_bytes())
            signal.setitimer(signal.ITIMER_REAL, deadline)
            outcome: bool | str
            try:
                outcome = bool(decide(answer, reference, algebra=True))
            except Exception as error:
                outcome = f"{type(error).__name__}: {error}"
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.send_bytes(json.dumps(outcome).encode())


# --- In the calling process ------------------------------------------------------------------------------------------


class _Worker:
    """A process that compares answers, and the connection to it."""

    def __init__(self) -> None:
        self.connection, theirs = Pipe()
        with theirs:
            code = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve({theirs.fileno()})"
            self.process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                process_group=0,  # after Ctrl-C in a terminal the current step is finished, which needs the workers
            )
        self.started = False
        self.num_left = TASKS_PER_WORKER

    def usable(self) -> bool:
        """Return whether the process runs and may do another comparison."""
        return self.num_left > 0 and self.process.poll() is None

    def compare(self, answer: str, reference: str, deadline: float) -> bool:
        """Return whether two cleaned answers are equal.

        Args:
            answer: Cleaned answer.
            reference: Cleaned reference.
            deadline: Seconds for the comparison, counted from when the process has started.

        Returns:
            Whether they are equal.

        Raises:
            TimeoutError: If the comparison reaches the deadline.
            RuntimeError: If computer algebra or the process fails.
            ChildProcessError: If the process has ended before it could compare anything.
        """
        sent = math.inf
        try:
            if not self.started:
                self.connection.recv_bytes()
                self.started = True
            sent = time.monotonic()
            self.connection.send_bytes(json.dumps([answer, reference, deadline]).encode())
            outcome = json.loads(self.connection.recv_bytes())
        except (EOFError, OSError):
            status = self.process.wait()
            if not self.started:
                raise ChildProcessError(f"the worker process ended at its start with status {status}") from None
            if time.monotonic() - sent >= deadline:
                raise TimeoutError from None
            raise RuntimeError(f"the worker process ended with status {status}") from None
        self.num_left -= 1
        if isinstance(outcome, str):
            raise RuntimeError(outcome)
        return bool(outcome)

    def kill(self) -> None:
        """End the process, from any thread."""
        self.num_left = 0
        self.process.kill()

    def close(self) -> None:
        """End the process and close the connection."""
        self.kill()
        self.process.wait()
        self.connection.close()


class Comparison(Future[bool]):
    """Future of a comparison: whether an answer equals a reference.

    Its exception is TimeoutError or RuntimeError if that is undecided, and another OSError if no worker could start.
    """

    def __init__(self, answer: str, reference: str, deadline: float) -> None:
        super().__init__()
        self._job = (answer, reference, deadline)
        self._guard = threading.Lock()
        self._worker: _Worker | None = None
        self._stopped = False

    def cancel(self) -> bool:
        """Cancel the comparison. The worker of a running one is killed."""
        with self._guard:
            self._stopped = True
            if self._worker:
                self._worker.kill()
        return super().cancel()

    def run(self, worker: _Worker) -> None:
        """Compare in a worker and set the result."""
        with self._guard:
            self._worker = worker
            if self._stopped:
                worker.kill()
        outcome, failure = False, None
        try:
            outcome = worker.compare(*self._job)
        except Exception as error:
            failure = error
        with self._guard:
            self._worker = None  # before the result is set: a caller may then cancel, which must not kill the worker
        if failure:
            self.set_exception(failure)
        else:
            self.set_result(outcome)


class _Pool:
    """Threads with a worker process each."""

    def __init__(self) -> None:
        num_processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.jobs: SimpleQueue[Comparison | None] = SimpleQueue()
        self.open: set[Comparison] = set()
        self.threads = [
            threading.Thread(target=self._run, daemon=True) for _ in range(min(MAX_WORKERS, num_processors))
        ]
        for thread in self.threads:
            thread.start()

    def submit(self, comparison: Comparison) -> None:
        """Queue a comparison."""
        self.open.add(comparison)
        comparison.add_done_callback(self.open.discard)
        self.jobs.put(comparison)

    def close(self) -> None:
        """Cancel all comparisons and end the workers."""
        for comparison in list(self.open):
            comparison.cancel()
        for _ in self.threads:
            self.jobs.put(None)
        for thread in self.threads:
            thread.join()

    def _run(self) -> None:
        """Run comparisons one after the other, in the same worker as long as it is usable."""
        worker: _Worker | None = None
        while comparison := self.jobs.get():
            if not comparison.set_running_or_notify_cancel():
                continue
            if worker and not worker.usable():
                worker.close()
                worker = None
            try:
                worker = worker or _Worker()
            except OSError as error:
                comparison.set_exception(error)
            else:
                comparison.run(worker)
        if worker:
            worker.close()


_lock = threading.RLock()
_pool: _Pool | None = None


def submit(answer: str, reference: str, deadline: float) -> Comparison:
    """Start a comparison.

    Args:
        answer: Cleaned answer.
        reference: Cleaned reference.
        deadline: Seconds for the comparison, counted from when a worker takes it.

    Returns:
        Future of the result.
    """
    global _pool
    comparison = Comparison(answer, reference, deadline)
    with _lock:
        _pool = _pool or _Pool()
        _pool.submit(comparison)
    return comparison


def wait_limit(deadline: float) -> float:
    """Return the seconds to wait for all open comparisons; those without a result then count as timed out."""
    with _lock:
        num_rounds = 1 + len(_pool.open) / len(_pool.threads) if _pool else 1
    return START_SECONDS + (deadline + 4.0) * math.ceil(num_rounds)


def shutdown() -> None:
    """Stop the workers and cancel open comparisons; the next comparison starts new workers. Called at exit."""
    global _pool
    with _lock:
        pool, _pool = _pool, None
    if pool:
        pool.close()


def _forget_pool() -> None:
    """Start without a pool in a forked child, which has no threads and does not own the workers."""
    global _lock, _pool
    _lock, _pool = threading.RLock(), None


atexit.register(shutdown)
os.register_at_fork(after_in_child=_forget_pool)
