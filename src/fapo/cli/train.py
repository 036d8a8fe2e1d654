"""`fapo train` and `fapo data`: training runs and their data for verl."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from tyro.conf import Positional

from fapo.cli.app import Overrides, app, console
from fapo.cli.progress import progress_bars

_SHOWN = {
    "rollout/accuracy": "accuracy",
    "rollout/fp_ratio": "FP",
    "rollout/true_fp_ratio": "true FP",
    "fapo/accuracy": "accuracy",
    "reward": "reward",
}


@app.command
def train(
    config: Positional[Path],
    overrides: Overrides = (),
    /,
    *,
    engine: Literal["trl", "verl"] = "trl",
    resume: bool = False,
    dry_run: bool = False,
    quiet: bool = False,
) -> None:
    """Train a policy or a GenRM, as a TOML config says.

    Args:
        config: TOML file.
        overrides: Settings that replace those of the file, such as reward.penalty=0.5; KEY= removes one.
        engine: trl: this machine, or several GPUs through accelerate. verl: a Ray cluster (RAY_ADDRESS; unset: here).
        resume: Go on with an interrupted run of the same name.
        dry_run: Check the config, print the exact arguments for TRL or the command for verl, and train nothing.
        quiet: No progress bar.
    """
    from fapo.config.reader import load

    settings = load(config, overrides)
    if engine == "verl":
        _train_verl(settings, resume, dry_run)
        return
    if dry_run:
        from fapo.trl import arguments

        Console().print_json(data=arguments.dry_run(settings), default=str)
        return
    if settings.method == "sft":
        from fapo.trl import sft as trainer
    else:
        from fapo.trl import train as trainer  # type: ignore[no-redef]
    with progress_bars(disable=quiet) as bars:
        bar = bars.add_task(settings.name, total=settings.optim.steps, note="")

        def progress(_task: str, step: int, _total: int, values: Mapping[str, Any] = {}, /) -> None:
            bars.update(bar, completed=step, note=_note(values))

        folder = trainer.train(settings, resume=resume, progress=progress)
    console.print(f"run folder: {folder}", highlight=False, soft_wrap=True)


def _train_verl(config: Any, resume: bool, dry_run: bool) -> None:
    from fapo.verl import train as train_verl

    if dry_run:
        print(train_verl.command(config, resume=resume))
        return
    console.print(f"run folder: {train_verl.train(config, resume=resume)}", highlight=False, soft_wrap=True)


@app.command
def data(config: Positional[Path], overrides: Overrides = (), /) -> None:
    """Write what a config trains and validates on as Parquet files for verl, into the run folder.

    The command that `fapo train CONFIG --engine verl --dry-run` prints finds them there.

    Args:
        config: TOML file.
        overrides: Settings that replace those of the file.
    """
    from fapo.config.reader import load
    from fapo.verl.train import prepare

    console.print(f"run folder: {prepare(load(config, overrides))}", highlight=False, soft_wrap=True)


def _note(values: Mapping[str, Any]) -> str:
    return "  ".join(f"{name} {values[key]:.2f}" for key, name in _SHOWN.items() if isinstance(values.get(key), float))
