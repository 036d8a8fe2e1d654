"""Callbacks of a training run: metrics and progress of each step, and a graceful stop at Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Iterator
from typing import Any

from transformers import TrainerCallback

from fapo.config.schema import Config
from fapo.training.recorder import Recorder
from fapo.trl.judge_while_generating import CANCEL_TIMEOUT
from fapo.types import Progress


class MetricsCallback(TrainerCallback):
    """Callback that writes the metrics of each step to the run folder, and calls a progress callback."""

    def __init__(self, config: Config, recorder: Recorder, progress: Progress | None) -> None:
        self.config, self.recorder, self.progress = config, recorder, progress

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Write the metrics of a training step; logs without a loss belong to a validation."""
        if not logs or "loss" not in logs:
            return
        values = {key: value for key, value in logs.items() if isinstance(value, int | float) and key != "step"}
        values |= self.recorder.measured
        self.recorder.folder.metrics(self.recorder.step, "train", values)
        if self.progress:
            self.progress(self.config.name, self.recorder.step, self.config.optim.steps, values)


class _StopCallback(TrainerCallback):
    """Callback that ends training after a step, with a checkpoint, once `requested` is set."""

    requested = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.requested and state.global_step % args.logging_steps == 0:
            control.should_save = control.should_training_stop = True


@contextlib.contextmanager
def graceful_stop(trainer: Any) -> Iterator[None]:
    """Let the first Ctrl-C end training after the current step, with a checkpoint, and the second one at once.

    In both cases the block ends with KeyboardInterrupt, since the run is not finished. After the second one no request
    to a judge is left, about which Python would print errors at its end. Outside the main thread Ctrl-C cannot be
    handled, and nothing changes.

    Args:
        trainer: A transformers Trainer that trains within the block.

    Raises:
        KeyboardInterrupt: If Ctrl-C was pressed before the last step.
    """
    stop = _StopCallback()
    trainer.add_callback(stop)

    def on_interrupt(*_: Any) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True
        logging.getLogger("fapo").warning("stopping after this step, with a checkpoint; Ctrl-C again stops at once")

    try:
        previous = signal.signal(signal.SIGINT, on_interrupt)
    except ValueError:  # only the main thread may handle signals
        yield
        return
    try:
        yield
    except KeyboardInterrupt:
        if loop := getattr(trainer, "async_loop", None):
            _cancel_tasks(loop)
        raise
    finally:
        signal.signal(signal.SIGINT, previous)
    if stop.requested and 0 < trainer.state.global_step < trainer.args.max_steps:
        raise KeyboardInterrupt


def _cancel_tasks(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel all tasks of an event loop that runs in another thread, and wait for their end."""

    async def cancel() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    with contextlib.suppress(TimeoutError):
        asyncio.run_coroutine_threadsafe(cancel(), loop).result(CANCEL_TIMEOUT)
