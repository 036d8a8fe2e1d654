"""`fapo train` and `fapo data`: training runs and their data for verl."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from fapo.cli.app import app, console
from fapo.cli.progress import progress_bars
from fapo.config.options import ConfigFile, Options, Quiet

if TYPE_CHECKING:
    from fapo.config.schema import Config

_SHOWN_METRICS = {
    "rollout/accuracy": "accuracy",
    "rollout/fp_ratio": "FP",
    "rollout/true_fp_ratio": "true FP",
    "fapo/accuracy": "accuracy",
    "reward": "reward",
}
"""Metric -> its name behind the progress bar."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings(ConfigFile):
    """A run, and how it is started."""

    engine: Literal["trl", "verl"] = "trl"
    """trl runs on this machine. verl runs on the Ray cluster at RAY_ADDRESS, or on a new one here."""
    resume: bool = False
    """Continue an interrupted run of the same name."""
    dry_run: bool = False
    """Check the config and say what the run will do, and what cannot be reached from here, without training."""
    verbose: bool = False
    """With --dry-run, print the exact arguments for TRL, or the command for verl, in place of that page."""


@app.command("train")
def train(*, settings: Options[TrainSettings], quiet: Quiet = False) -> None:
    """Train the policy or the GenRM of a TOML config."""
    from fapo.config.reader import load_with_places
    from fapo.training.preview import check_inputs, preview

    config, place = load_with_places(settings.config, settings.overrides)
    if settings.dry_run:
        if not settings.verbose:
            print(preview(config, place, settings.engine), flush=True)
        _check_engine(config, settings)
        return
    check_inputs(config, place)
    if settings.engine == "verl":
        from fapo.verl import train as train_verl

        folder = train_verl.train(config, resume=settings.resume)
        console.line(f"run folder: {folder}")
        return
    if config.method == "sft":
        from fapo.trl.sft import train as run
    else:
        from fapo.trl.train import train as run

    with progress_bars(disable=quiet) as bars:
        bar = bars.add_task(config.name, total=config.optim.steps, note="")

        def progress(_task: str, step: int, _total: int, metrics: Mapping[str, float] = {}, /) -> None:
            bars.update(bar, completed=step, note=_note(metrics))

        folder = run(config, resume=settings.resume, progress=progress)
    console.line(f"run folder: {folder}")


def _check_engine(config: Config, settings: TrainSettings) -> None:
    """Let the engine check its arguments, and print them if `settings.verbose`."""
    if settings.engine == "verl":
        from fapo.verl import train as train_verl

        command = train_verl.command(config, resume=settings.resume)
        print(command if settings.verbose else "\nverl accepts the settings; --verbose prints the command")
        return
    from fapo.trl import arguments

    found = arguments.dry_run(config)
    if settings.verbose:
        from rich.console import Console

        Console().print_json(data=found, default=str)
    else:
        print("\nTRL accepts the settings; --verbose prints its arguments")


@app.command("data")
def data(*, settings: Options[ConfigFile]) -> None:
    """Write the training and validation data of a config as Parquet files for verl into the run folder.

    The command that `fapo train CONFIG --engine verl --dry-run --verbose` prints reads them there.
    """
    from fapo.verl.train import prepare

    console.line(f"run folder: {prepare(settings.load())}")


def _note(metrics: Mapping[str, float]) -> str:
    """Return the text behind the progress bar."""
    shown = {name: metrics.get(key) for key, name in _SHOWN_METRICS.items()}
    return "  ".join(f"{name} {value:.2f}" for name, value in shown.items() if isinstance(value, float))
