"""A Ray cluster: config -> run folder -> verl's own program, unmodified. What is ours is in fapo.verl."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from fapo.config.schema import Config, LocalJudge, ModelJudge
from fapo.errors import EngineError
from fapo.training.run_folder import RunFolder
from fapo.training.run_lock import take
from fapo.verl.datasets import files, write_sets
from fapo.verl.overrides import MODULE, compose, overrides


def train(config: Config, *, resume: bool = False) -> Path:
    """Run a config on a Ray cluster, the one of RAY_ADDRESS or else one of this machine; returns the run folder.

    The run folder must be one that all nodes see. Raises ConfigError for settings that cannot work, before anything is
    started, and EngineError when verl ends with an error; verl prints the reason on the console.
    """
    settled = absolute(config)
    given = overrides(settled, resume=resume)
    compose(given)
    folder = prepare(settled, resume=resume)
    done = subprocess.run([sys.executable, "-m", MODULE, *given])
    if done.returncode:
        raise EngineError(
            f"verl has stopped with exit status {done.returncode}; its messages are above; "
            "remove the cause, then continue from the last checkpoint with --resume"
        )
    return folder


def command(config: Config, *, resume: bool = False) -> str:
    """The command that `train` runs, for a shell; it needs the files that `prepare` writes. Raises ConfigError."""
    given = overrides(absolute(config), resume=resume)
    compose(given)
    return shlex.join(["python", "-m", MODULE, *given])


def prepare(config: Config, *, resume: bool = False) -> Path:
    """Open the run folder, which is this process's from now on, and write the data into it; returns it."""
    config = absolute(config)
    folder = RunFolder(config, resume=resume).path
    take(folder)
    if not resume or not all(path.exists() for path in files(config, folder / "data")):
        write_sets(config, folder / "data")
    return folder


def absolute(config: Config) -> Config:
    """The same with absolute paths, since Ray's workers have working directories of their own."""
    judge, genrm = config.judge, config.genrm
    if isinstance(judge, ModelJudge):
        cache = judge.cache and str(Path(judge.cache).resolve())
        judge = replace(judge, template=_absolute_template(judge.template), cache=cache)
    if isinstance(judge, LocalJudge):
        judge = replace(judge, model=_absolute(judge.model))
    if genrm:
        genrm = replace(genrm, template=_absolute_template(genrm.template))
    model = replace(config.model, path=_absolute(config.model.path))
    return replace(config, output=str(Path(config.output).resolve()), model=model, judge=judge, genrm=genrm)


def _absolute_template(name: str) -> str:
    return _absolute(name) if name.endswith(".txt") else name


def _absolute(name: str) -> str:
    """The name of a file or folder as its absolute path, any other name as it is."""
    return str(Path(name).resolve()) if name and Path(name).exists() else name
