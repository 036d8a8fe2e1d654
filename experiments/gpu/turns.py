"""Runs of one experiment, each in a process of its own: all at once or one after the other, and they end in time.

A run that has the card to itself is faster than one of several by more than their number: most of its time goes into
starting kernels, and processes that share a card wait for each other there. All processes import their libraries at the
same time, before the first one has its turn.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fapo.config.schema import Config
from fapo.data import read_jsonl
from fapo.data.files import atomic_path

TIMES = ("time/rollout", "time/score", "time/update")
"""Parts of a training step, in seconds."""
POLL = 0.5
"""Seconds between two looks at the processes."""
WATCH = 5.0
"""Seconds between two calls of `watch`."""
GRACE = 6.0
"""Seconds that a run needs after its last step, to save and to end."""


def run_each(
    module: str,
    kinds: Sequence[str],
    work: Path,
    seconds: float,
    *,
    alone: bool,
    ready: Callable[[], bool] = lambda: True,
    watch: Callable[[], None] = lambda: None,
) -> dict[str, dict[str, Any]]:
    """Run this command line's module once for each kind, each in a process of its own.

    Each process gets the same options and `--kind KIND`, calls `my_turn`, and writes to work/log-KIND.txt.

    Args:
        module: Module that was started, such as "experiments.gpu.genrm".
        kinds: Values of --kind.
        work: Folder of the logs.
        seconds: Time after which the processes are killed.
        alone: Whether one run has its turn after the other, with equal parts of the time that is left, or all at once.
        ready: Whether a turn may begin, for example because the model is there.
        watch: Function that is called every few seconds, for example to keep what there is.

    Returns:
        For each kind its exit code, whether it was killed, its seconds, and the end of its log unless it ended well.
    """
    end = time.time() + seconds
    children: dict[str, subprocess.Popen[bytes]] = {}
    for kind in kinds:
        _turn(work, kind).unlink(missing_ok=True)
        _waits(work, kind).unlink(missing_ok=True)
        command = [sys.executable, "-m", module, *sys.argv[1:], "--kind", kind]
        with (work / f"log-{kind}.txt").open("a", encoding="utf-8") as log:
            children[kind] = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "TERM": "dumb"}
            )

    def can_begin(turn: Sequence[str]) -> bool:
        return ready() and all(_waits(work, kind).exists() or children[kind].poll() is not None for kind in turn)

    turns = [[kind] for kind in kinds] if alone else [list(kinds)]
    ends: dict[str, dict[str, Any]] = {}
    for i, turn in enumerate(turns):
        while not can_begin(turn) and time.time() < end:
            time.sleep(POLL)
        begun = time.time()
        last = begun + max(0.0, end - begun) / (len(turns) - i)
        for kind in turn:
            with atomic_path(_turn(work, kind)) as draft:
                draft.write_text(str(last), encoding="utf-8")
        watched = begun
        while any(children[kind].poll() is None for kind in turn) and time.time() < last:
            time.sleep(POLL)
            if time.time() - watched > WATCH:
                watch()
                watched = time.time()
        for kind in turn:
            ends[kind] = _ended(children[kind], work / f"log-{kind}.txt") | {"seconds": round(time.time() - begun, 1)}
        watch()
    return ends


def _turn(work: Path, kind: str) -> Path:
    """Return the file that gives a run its turn; it holds the time at which the turn ends, by time.time()."""
    return work / f"turn-{kind}"


def _waits(work: Path, kind: str) -> Path:
    """Return the file that says that a run has imported its libraries and waits for its turn."""
    return work / f"waits-{kind}"


def _ended(child: subprocess.Popen[bytes], log: Path) -> dict[str, Any]:
    """Kill a process that still runs, and return how it ended."""
    late = child.poll() is None
    if late:
        child.kill()
        child.wait()
    found: dict[str, Any] = {"exit_code": child.returncode, "ended_for_lack_of_time": late}
    if child.returncode:
        found["log_end"] = log.read_text(encoding="utf-8", errors="replace")[-1500:]
    return found


def my_turn(work: Path, kind: str) -> float:
    """Import what a run needs and wait for its turn; return the time at which it ends. Exit if the parent is gone."""
    import fapo.trl.train  # noqa: F401  # ten seconds that pass before the turn begins

    parent = os.getppid()
    _waits(work, kind).touch()
    while not _turn(work, kind).exists():
        if os.getppid() != parent:
            sys.exit(f"{kind}: the process that gives the turns is gone")
        time.sleep(POLL / 5)
    return float(_turn(work, kind).read_text(encoding="utf-8"))


def train_in_time(config: Config, end: float) -> None:
    """Run `fapo train`, or continue that run; end it, with a checkpoint, before a validation that would be too late.

    A run without a validation after its start is not ended: its first steps are slow, and all before would be lost.

    Args:
        config: Config of the run.
        end: Time at which the process is killed, by time.time().
    """
    from fapo.trl.train import train

    folder, asked = Path(config.output) / config.name, False

    def progress(task: str, done: int, total: int, metrics: Mapping[str, float] | None = None) -> None:
        nonlocal asked
        rows = list(read_jsonl(folder / "metrics.jsonl"))
        needed = seconds_to_validation(rows, config.validation.every, total)
        is_measured = any(row["kind"] == "validation" and row["step"] > 0 for row in rows)
        left, shown = end - time.time(), shown_step(task, done, total, metrics)
        print(f"{shown}; {left:.0f} s left, {needed:.0f} needed", flush=True)
        if needed + GRACE > left and is_measured and not asked:
            asked = True  # a second signal would stop the run at once, without a checkpoint
            os.kill(os.getpid(), signal.SIGINT)

    try:
        train(config, resume=folder.exists(), progress=progress)
    except KeyboardInterrupt:
        print(f"{config.name}: stopped, since there is no time for another validation", flush=True)


SHOWN = ("reward", "rollout/accuracy", "rollout/fp_ratio", "f1", "location", "grad_norm", "entropy", "loss")
"""Metrics of a step that are printed."""


def shown_step(task: str, done: int, total: int, metrics: Mapping[str, float] | None) -> str:
    """Return a step of a training, with its metrics and its seconds, as text; the arguments are those of `Progress`."""
    values = metrics or {}
    seen = ", ".join(f"{k.split('/')[-1]} {v:.3f}" for k, v in values.items() if k in SHOWN)
    parts = " ".join(f"{values[key]:.1f}" for key in TIMES if key in values)
    return f"{task} step {done}/{total}: {seen}; {parts} s"


def seconds_to_validation(rows: Sequence[Mapping[str, Any]], every: int, total: int) -> float:
    """Return the seconds until the next validation that is worth waiting for is complete.

    After a step with a validation, which follows at once, that is the one after it.

    Args:
        rows: Rows of metrics.jsonl; the last one is that of the step that was just done.
        every: Steps between two validations.
        total: Steps of the run; the last step has a validation, too.

    Returns:
        Seconds, from the three slowest parts that are known: the last three steps, and the last validation. The first
        validation counts from the start of the process, which is too much.
    """
    rows = _of_this_process(rows)
    steps = [row for row in rows if row["kind"] == "train"]
    step = max(sum(row.get(key) or 0.0 for key in TIMES) for row in steps[-3:])
    validation = 0.0
    for before, row in zip([{"seconds": 0.0}, *rows], rows, strict=False):
        if row["kind"] == "validation":
            validation = row["seconds"] - before["seconds"]
    done = steps[-1]["step"]
    to_go = min(every - done % every, total - done)
    here = done % every == 0 or done == total
    return (validation if here else 0.0) + (to_go * step + validation if to_go else 0.0)


def _of_this_process(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the rows of the last process that wrote them: each one counts its seconds from 0."""
    start = max((i for i in range(1, len(rows)) if rows[i]["seconds"] < rows[i - 1]["seconds"]), default=0)
    return list(rows[start:])


def newest(run: Path) -> Path | None:
    """Return the folder of a run's model, or of its last checkpoint; None if there is neither."""
    from fapo.trl.checkpoints import last_checkpoint  # imports transformers

    if (run / "model").exists():
        return run / "model"
    _, checkpoint = last_checkpoint(run / "checkpoints")
    return Path(checkpoint) if checkpoint else None
