"""`fapo train` and `fapo data`: training runs and their data for verl."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from fapo.cli.app import Overrides, Quiet, app, console
from fapo.cli.progress import progress_bars

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


@app.command("train")
def train(
    config: Positional[Path],
    overrides: Overrides = (),
    /,
    *,
    engine: Literal["trl", "verl"] = "trl",
    resume: bool = False,
    dry_run: bool = False,
    verbose: bool = False,
    quiet: Quiet = False,
) -> None:
    """Train the policy or the GenRM of a TOML config.

    Args:
        config: TOML file, or a name of `fapo configs`.
        overrides: Settings that replace those of the file, such as reward.penalty=0.5; KEY= removes a setting.
        engine: trl runs on this machine. verl runs on the Ray cluster at RAY_ADDRESS, or on a new one here.
        resume: Continue an interrupted run of the same name.
        dry_run: Check the config and say what the run will do, and what cannot be reached from here, without training.
        verbose: With --dry-run, print the exact arguments for TRL, or the command for verl, in place of that page.
        quiet: Show no progress bar.
    """
    from fapo.config.reader import load_with_places
    from fapo.training.preview import check_inputs, preview

    settings, place = load_with_places(config, overrides)
    if dry_run:
        if not verbose:
            print(preview(settings, place, engine), flush=True)
        _check_engine(settings, engine, resume, verbose)
        return
    check_inputs(settings, place)
    if engine == "verl":
        from fapo.verl import train as train_verl

        console.print(f"run folder: {train_verl.train(settings, resume=resume)}", highlight=False, soft_wrap=True)
        return
    if settings.method == "sft":
        from fapo.trl.sft import train as run
    else:
        from fapo.trl.train import train as run

    with progress_bars(disable=quiet) as bars:
        bar = bars.add_task(settings.name, total=settings.optim.steps, note="")

        def progress(_task: str, step: int, _total: int, metrics: Mapping[str, float] = {}, /) -> None:
            bars.update(bar, completed=step, note=_note(metrics))

        folder = run(settings, resume=resume, progress=progress)
    console.print(f"run folder: {folder}", highlight=False, soft_wrap=True)


def _check_engine(config: Config, engine: str, resume: bool, verbose: bool) -> None:
    """Let the engine check its arguments, and print them if `verbose`."""
    if engine == "verl":
        from fapo.verl import train as train_verl

        command = train_verl.command(config, resume=resume)
        print(command if verbose else "\nverl accepts the settings; --verbose prints the command")
        return
    from fapo.trl import arguments

    found = arguments.dry_run(config)
    if verbose:
        from rich.console import Console

        Console().print_json(data=found, default=str)
    else:
        print("\nTRL accepts the settings; --verbose prints its arguments")


@app.command("data")
def data(config: Positional[Path], overrides: Overrides = (), /) -> None:
    """Write the training and validation data of a config as Parquet files for verl into the run folder.

    The command that `fapo train CONFIG --engine verl --dry-run --verbose` prints reads them there.

    Args:
        config: TOML file.
        overrides: Settings that replace those of the file.
    """
    from fapo.config.reader import load
    from fapo.verl.train import prepare

    console.print(f"run folder: {prepare(load(config, overrides))}", highlight=False, soft_wrap=True)


def _note(metrics: Mapping[str, float]) -> str:
    """Return the text behind the progress bar."""
    shown = {name: metrics.get(key) for key, name in _SHOWN_METRICS.items()}
    return "  ".join(f"{name} {value:.2f}" for name, value in shown.items() if isinstance(value, float))
