"""Train on a Ray cluster: config -> run folder -> verl's own program, unmodified."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

from fapo.config.paths import judge_tables, path_settings
from fapo.config.reader import from_dict, to_dict
from fapo.config.schema import Config, PRMJudge
from fapo.data.load import load_labelled
from fapo.data.problems import built_in_prompts
from fapo.errors import EngineError
from fapo.judge.from_config import step_tokenizer
from fapo.judge.template import built_in_templates
from fapo.rewards.from_config import check_scorer
from fapo.training.datasets import load_sets
from fapo.training.run_folder import RunFolder, check_engine
from fapo.verl.datasets import parquet_files, write_sets
from fapo.verl.overrides import PROGRAM, compose, overrides


def train(config: Config, *, resume: bool = False) -> Path:
    """Run a config on the Ray cluster of RAY_ADDRESS, or else on a cluster of this machine alone.

    All nodes must see the run folder under the same path.

    Args:
        config: Config of the run.
        resume: Whether an interrupted run continues from its last checkpoint.

    Returns:
        Path of the run folder.

    Raises:
        ConfigError: If a setting cannot work; nothing has been started then.
        DataError: If a data set cannot be used.
        EngineError: If verl ends with an error. verl prints the reason on the console.
    """
    config = with_absolute_paths(config)
    arguments = overrides(config, resume=resume)
    compose(arguments)
    folder = prepare(config, resume=resume)
    done = subprocess.run([sys.executable, "-m", PROGRAM, *arguments])
    if done.returncode:
        raise EngineError(
            f"verl has stopped with exit status {done.returncode}; its messages are above; "
            "remove the cause, then continue from the last checkpoint with --resume"
        )
    return folder


def command(config: Config, *, resume: bool = False) -> str:
    """Return the command that `train` runs, for a shell; it reads the files that `prepare` writes.

    Args:
        config: Config of the run.
        resume: Whether an interrupted run continues from its last checkpoint.

    Returns:
        One line of shell.

    Raises:
        ConfigError: If a setting cannot work.
    """
    check_scorer(config)
    arguments = overrides(with_absolute_paths(config), resume=resume)
    compose(arguments)
    return shlex.join(["python", "-m", PROGRAM, *arguments])


def prepare(config: Config, *, resume: bool = False) -> Path:
    """Open the run folder, lock it for this process, and write the data sets into it.

    Args:
        config: Config of the run.
        resume: Whether an interrupted run continues; its data sets are kept if they are complete.

    Returns:
        Path of the run folder.

    Raises:
        ConfigError: If the folder holds a run and `resume` is not set, if the run in it had another config or engine,
            or if another process is training in it. Also if the template of the judge cannot be used.
        DataError: If a data set or the canaries cannot be used.
    """
    config = with_absolute_paths(config)
    if resume:
        check_engine(config, "verl")
    _check_files(config)
    written = parquet_files(config, Path(config.output) / config.name / "data")
    is_complete = resume and all(path.exists() for path in written)
    sets = {} if is_complete else load_sets(config)  # before there is a folder, which a mistake would leave
    folder = RunFolder(config, resume=resume, lock=True).path
    write_sets(sets, folder / "data")
    return folder


def _check_files(config: Config) -> None:
    """Raise ConfigError or DataError for a template, tokenizer or canaries that the reward workers could not load."""
    check_scorer(config)
    for _, judge in config.judge.parts if config.judge else ():
        if isinstance(judge, PRMJudge):
            step_tokenizer(judge)
    if config.judge and config.judge.canaries:
        load_labelled(config.judge.canaries)


def with_absolute_paths(config: Config) -> Config:
    """Return the config with absolute paths, because Ray's workers have other working directories."""
    table = to_dict(config)
    for _, judge in judge_tables(table):
        if judge.get("kind") == "prm" and judge["urls"]:  # its servers know the model, and the workers read the folder
            judge["tokenizer"] = judge["tokenizer"] or judge["model"]
    built_in = {"template": built_in_templates(), "prompt": built_in_prompts()}
    for key, inner, last in path_settings(table):
        value = inner[last]
        is_read_here = key.startswith("data.") and key != "data.prompt"  # the workers read what `prepare` writes
        is_there = not is_read_here and value not in built_in.get(last, ()) and Path(value).exists()
        if is_there or last in ("output", "cache"):
            inner[last] = str(Path(value).resolve())
    return from_dict(table)
