"""Progress of a run, and its graceful stop."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections.abc import Iterator
from typing import Any

from transformers import TrainerCallback

from fapo.config.schema import Config
from fapo.training.recorder import Recorder
from fapo.types import Progress


class Callback(TrainerCallback):
    """Metrics into the run folder, progress to whoever watches."""

    def __init__(self, config: Config, recorder: Recorder, progress: Progress | None) -> None:
        self.config, self.recorder, self.progress = config, recorder, progress

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        values = {key: value for key, value in logs.items() if isinstance(value, int | float) and key != "step"}
        values |= self.recorder.measured
        self.recorder.folder.metrics(self.recorder.step, "train", values)
        if self.progress:
            self.progress(self.config.name, self.recorder.step, self.config.optim.steps, values)


@contextlib.contextmanager
def stop_politely(trainer: Any) -> Iterator[None]:
    """The first Ctrl-C ends training after the current step, with a checkpoint; a second one at once.

    Either way KeyboardInterrupt leaves the block, since the run is not finished.
    """

    class Stop(TrainerCallback):
        asked = False

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if self.asked and state.global_step % trainer.args.logging_steps == 0:
                control.should_save = control.should_training_stop = True

    stop = Stop()
    trainer.add_callback(stop)

    def handle(*_: Any) -> None:
        if stop.asked:
            raise KeyboardInterrupt
        stop.asked = True
        logging.getLogger("fapo").warning("stopping after this step, with a checkpoint; Ctrl-C again stops at once")

    try:
        before = signal.signal(signal.SIGINT, handle)
    except ValueError:  # not in the main thread: Ctrl-C is somebody else's
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if stop.asked and 0 < trainer.state.global_step < trainer.args.max_steps:
        raise KeyboardInterrupt
