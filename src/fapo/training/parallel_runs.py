"""Several runs of the miniature, two at a time, each in its own process; interrupted, they go on where they were."""

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
    """One run."""

    name: str
    """Name of the run and of its folder."""
    config: Path
    """Its TOML file."""
    overrides: tuple[str, ...] = ()
    """Settings that differ from the file."""
    after: str | None = None
    """Name of a job that must be finished before."""

    def folder(self, output: Path) -> Path:
        return output / self.name

    def done(self, output: Path) -> bool:
        """Whether the trained model is there."""
        return is_finished(self.folder(output))

    def steps(self, output: Path) -> tuple[int, int]:
        """Steps done and steps in all, as far as the run folder tells."""
        folder = self.folder(output)
        if not (folder / "config.json").exists():
            return 0, 0
        run = read_run(folder)
        return run.last_step, run.table("optim")["steps"]


Watch = Callable[[dict[str, str]], None]
"""Told now and then the state of each job: waiting, running or done."""


def run_jobs(jobs: Sequence[Job], output: Path, watch: Watch = lambda _: None, workers: int = 2) -> None:
    """Run all jobs below `output`. One core for each: small models gain nothing from more. Raises EngineError."""
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
            for job in ready[: workers - len(running)]:
                waiting.remove(job)
                running[job.name] = _start(job, output)
            watch({j.name: "running" if j.name in running else "waiting" if j in waiting else "done" for j in jobs})
            time.sleep(0.5)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()


def _start(job: Job, output: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "fapo.cli", "train", str(job.config), "--resume", "--quiet"]
    command += [f"name={job.name}", f"output={output}", *job.overrides]
    threads = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with (output / f"{job.name}.log").open("ab") as log:
        return subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **threads}
        )


def demo_jobs(output: Path, seed: int = 0) -> list[Job]:
    """Baseline beside (GenRM, then FAPO judged by it)."""
    policy, genrm = CONFIG_FOLDER / "policy.toml", CONFIG_FOLDER / "genrm.toml"
    of_seed = f"seed={seed}"
    return [
        Job(f"genrm-{seed}", genrm, (of_seed,)),
        Job(f"baseline-{seed}", policy, (of_seed, "reward.kind=outcome", "judge=")),
        Job(f"fapo-{seed}", policy, (of_seed, f"judge.model={output}/genrm-{seed}/model"), after=f"genrm-{seed}"),
    ]


def study_jobs(output: Path, seeds: Sequence[int]) -> list[Job]:
    """The demo for several seeds, with the outcome-only GenRM beside."""
    jobs = [job for seed in seeds for job in demo_jobs(output, seed)]
    config, overrides = CONFIG_FOLDER / "genrm.toml", ("reward.kind=genrm_outcome",)
    jobs += [Job(f"genrm-outcome-{seed}", config, (f"seed={seed}", *overrides)) for seed in seeds]
    return sorted(jobs, key=lambda job: job.after is not None)
