"""TRL's GRPOTrainer with named validation sets, seconds of each part of a step, and no work for zero advantages.

Metrics of fapo go to every logger that `report_to` names, beside those of TRL. The private methods that are overridden
here are listed in `fapo.trl.version`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from trl import GRPOTrainer

from fapo.inference.decoding import decode
from fapo.training.datasets import TRAIN
from fapo.training.step_metrics import validation_metrics
from fapo.trl.token_advantages import token_advantages
from fapo.trl.version import require_methods, warn_unless_checked
from fapo.trl.zero_advantage import SkipZeroAdvantages


class StepClock:
    """Stopwatch for the parts of a training step."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        """Seconds spent on each part since the last `lap`."""
        self.now: Callable[[], float] = time.perf_counter
        """Function that returns the present time in seconds."""

    @contextlib.contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Add the seconds that the block takes to a part."""
        start = self.now()
        try:
            yield
        finally:
            self.seconds[part] += self.now() - start

    def lap(self) -> dict[str, float]:
        """Return the seconds of each part since the last call.

        time/rollout is generation, time/score is answer checks and judge, time/update is the rest of the step.
        """
        rollout, score, step = (self.seconds[part] for part in ("rollout", "score", "step"))
        self.seconds.clear()
        return {"time/rollout": rollout, "time/score": score, "time/update": step - rollout - score}


class Timed(GRPOTrainer):
    """GRPOTrainer that measures the parts of each step with its `clock`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        names = ("_generate", "_calculate_rewards", "_prepare_inputs", "_generate_and_score_completions")
        require_methods(GRPOTrainer, names, "fapo train")
        warn_unless_checked()
        self.clock = StepClock()
        super().__init__(*args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Do a training step of TRL, and time it."""
        with self.clock("step"):
            return super().training_step(*args, **kwargs)

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        with self.clock("rollout"):
            return super()._generate(*args, **kwargs)

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
        with self.clock("score"):
            return super()._calculate_rewards(*args, **kwargs)


class Trainer(SkipZeroAdvantages, Timed):
    """Trainer of a run: it validates each set under its own name, with the settings of [validation]."""

    validation_sampling: tuple[float, float] = (1.0, 1.0)
    """Temperature and top_p of validation."""
    recorder: Any
    """Recorder of the run: it holds the scored rollouts and the name of the set that is being validated."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.accelerator.num_processes == 1:  # several may have to do the same number of forward passes
            self.model.generate = functools.partial(self.model.generate, custom_generate=decode)

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
        with _no_warning_of_masked_rollouts():
            rewards = super()._calculate_rewards(*args, **kwargs)
        with self.clock("score"):
            # not in the reward function: it runs in a thread, and processes meet here
            replaced = self.recorder.write()
        if replaced is None:
            return rewards
        # for advantages scale_rewards is "none", and they have the mean 0 in each group: TRL passes them on unchanged
        values = [math.nan if value is None else value for value in replaced]
        return torch.tensor(values, dtype=rewards.dtype, device=rewards.device).unsqueeze(1)

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        batch = super()._generate_and_score_completions(inputs)
        if self.recorder.parts and not self.recorder.evaluating:
            batch["advantages"] = token_advantages(self.recorder.parts, batch, self.processing_class)
        return batch

    def prediction_step(self, model: Any, inputs: Any, *_: Any, **__: Any) -> tuple[torch.Tensor, None, None]:
        """Generate and score a batch of validation; its loss is not computed.

        Args:
            model: Not used.
            inputs: Rows of the validation set.

        Returns:
            A loss of 0, no logits, no labels.
        """
        self._prepare_inputs(inputs)
        return torch.zeros((), device=self.accelerator.device), None, None  # processes gather it, by NCCL on GPUs

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log metrics; those of a training step are joined by the metrics of its rollouts.

        TRL's metrics of a validation are not logged. They do not name the set, and problems that accelerate repeats to
        fill the last batches count twice in them.

        Args:
            logs: Metrics of TRL. Finite metrics of fapo are added to it.
            start_time: Time at which training started, for metrics of speed.
        """
        if self.recorder.evaluating:
            self._metrics["eval"].clear()
            return
        if "loss" in logs:
            self.recorder.measured = self.recorder.summary(TRAIN) | self.clock.lap()
            logs.update(_finite(self.recorder.measured))
        super().log(logs, start_time)

    def evaluate(self, eval_dataset: Any = None, **kwargs: Any) -> dict[str, float]:
        """Validate each set and write its metrics to the run folder; training continues as if nothing had happened.

        Args:
            eval_dataset: Data sets by name; by default those of the trainer.
            **kwargs: Not used.

        Returns:
            Metrics of all sets: eval_NAME/accuracy and so on.
        """
        sets = eval_dataset if eval_dataset is not None else self.eval_dataset
        recorder = self.recorder
        out: dict[str, float] = {}
        seconds = self.clock.seconds.copy()
        seed = recorder.config.seed + self.state.global_step + (self.accelerator.process_index << 32)
        with _sampling(self, *self.validation_sampling), _separate_rng(seed):
            for name, dataset in sets.items():
                recorder.evaluating = name
                try:
                    super().evaluate(dataset, metric_key_prefix=f"eval_{name}")
                finally:
                    recorder.evaluating = None
                out |= validation_metrics(name, recorder.summary(name))
        self.clock.seconds = seconds
        recorder.folder.metrics(recorder.step, "validation", out)
        metrics = {f"eval_{key}": value for key, value in out.items()}
        self.log(_finite(metrics))
        return metrics


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    """Return the finite values: loggers cannot draw the others."""
    return {key: value for key, value in values.items() if math.isfinite(value)}


@contextlib.contextmanager
def _no_warning_of_masked_rollouts() -> Iterator[None]:
    """Within the block, drop TRL's warning of rollouts without a reward; `rollout/unscored_rate` counts them."""

    def keeps(record: logging.LogRecord) -> bool:
        return "All reward functions returned None" not in record.getMessage()

    logger = logging.getLogger(GRPOTrainer.__module__)
    logger.addFilter(keeps)
    try:
        yield
    finally:
        logger.removeFilter(keeps)


@contextlib.contextmanager
def _sampling(trainer: Any, temperature: float, top_p: float) -> Iterator[None]:
    """Within the block, sample with this temperature (0: greedy) and top_p."""
    targets = [t for t in (getattr(trainer, "generation_config", None), getattr(trainer, "vllm_generation", None)) if t]
    before = [(t, {k: getattr(t, k) for k in ("temperature", "top_p", "do_sample") if hasattr(t, k)}) for t in targets]
    for target, settings in before:
        target.temperature, target.top_p = temperature or 1.0, top_p
        if "do_sample" in settings:
            target.do_sample = temperature > 0
        elif not temperature:
            target.temperature = 0.0
    try:
        yield
    finally:
        for target, settings in before:
            for key, value in settings.items():
                setattr(target, key, value)


@contextlib.contextmanager
def _separate_rng(seed: int) -> Iterator[None]:
    """Within the block, draw from a generator with this seed; the random numbers of training stay as they are."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
