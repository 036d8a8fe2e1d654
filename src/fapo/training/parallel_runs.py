"""Several runs of the miniature at the same time, each in its own process; interrupted runs are resumed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fapo.data.miniature.sets import CONFIG_FOLDER
from fapo.errors import EngineError
from fapo.training.run_reader import is_finished, read_run


@dataclass(frozen=True)
class Job:
    """One run, and the run that it needs."""

    name: str
    """Name of the run and of its folder."""
    config: Path
    """TOML file of the run."""
    overrides: tuple[str, ...] = ()
    """Settings that replace those of the file."""
    after: str | None = None
    """Name of the job that must be finished first; None for no such job."""

    def folder(self, output: Path) -> Path:
        """Return the run folder below `output`."""
        return output / self.name

    def done(self, output: Path) -> bool:
        """Return whether the run folder holds the trained model."""
        return is_finished(self.folder(output))

    def steps(self, output: Path) -> tuple[int, int]:
        """Return the number of steps that are done and of all steps; 0, 0 before the run has begun."""
        folder = self.folder(output)
        if not (folder / "config.json").exists():
            return 0, 0
        run = read_run(folder)
        return run.last_step, run.table("optim")["steps"]


StateCallback = Callable[[dict[str, str]], None]
"""Callback with the state of each job by its name: waiting, running or done."""


def run_jobs(
    jobs: Sequence[Job], output: Path, on_states: StateCallback = lambda _: None, num_workers: int = 2
) -> None:
    """Run all jobs, each with one processor core, since small models are not faster with more.

    Args:
        jobs: Jobs; finished ones are left out.
        output: Folder that holds the run folders and the logs.
        on_states: Callback, called twice a second.
        num_workers: Number of jobs that run at the same time.

    Raises:
        EngineError: A run has failed.
    """
    output.mkdir(parents=True, exist_ok=True)
    waiting = [job for job in jobs if not job.done(output)]
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        while waiting or running:
            for name, process in list(running.items()):
                if process.poll() is None:
                    continue
                del running[name]
                if process.returncode:
                    raise EngineError(
                        f"the run {name} has failed; read {output / name}.log, remove the cause, "
                        "then give the same command again"
                    )
            ready = [j for j in waiting if j.after is None or all(o.done(output) for o in jobs if o.name == j.after)]
            for job in ready[: num_workers - len(running)]:
                waiting.remove(job)
                running[job.name] = _start(job, output)
            on_states({j.name: "running" if j.name in running else "waiting" if j in waiting else "done" for j in jobs})
            time.sleep(0.5)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


def _start(job: Job, output: Path) -> subprocess.Popen[bytes]:
    """Start `fapo train` for a job; its output goes into a log beside the run folder."""
    command = [sys.executable, "-m", "fapo.cli", "train", str(job.config), "--resume", "--quiet"]
    command += [f"name={job.name}", f"output={output}", *job.overrides]
    threads = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with (output / f"{job.name}.log").open("ab") as log:
        return subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **threads}
        )


def demo_jobs(output: Path, seed: int = 0) -> list[Job]:
    """Return the jobs of `fapo demo`: a baseline, a GenRM, and a FAPO run that this GenRM judges.

    Args:
        output: Folder that holds the run folders.
        seed: Seed of all runs.

    Returns:
        Three jobs; the FAPO run needs the GenRM.
    """
    policy, genrm = CONFIG_FOLDER / "policy.toml", CONFIG_FOLDER / "genrm.toml"
    with_seed = f"seed={seed}"
    return [
        Job(f"genrm-{seed}", genrm, (with_seed,)),
        Job(f"baseline-{seed}", policy, (with_seed, "reward.kind=outcome", "judge=")),
        Job(f"fapo-{seed}", policy, (with_seed, f"judge.model={output}/genrm-{seed}/model"), after=f"genrm-{seed}"),
    ]
