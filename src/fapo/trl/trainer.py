"""TRL's GRPOTrainer with what FAPO's runs need: named validations and times; rollouts without advantage are skipped.

Our metrics go to whatever `report_to` names, beside TRL's own.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from trl import GRPOTrainer

from fapo.training.datasets import TRAIN
from fapo.training.step_metrics import of_validation
from fapo.trl.zero_advantage import SkipZeroAdvantages


class _Clock:
    """Seconds of training spent on each part."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, float] = defaultdict(float)

    @contextlib.contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spent[part] += time.perf_counter() - start

    def lap(self) -> dict[str, float]:
        """time/rollout, time/score (answers and judge), time/update (the rest of a step), since last asked for."""
        rollout, score, step = (self.spent[part] for part in ("rollout", "score", "step"))
        self.spent.clear()
        return {"time/rollout": rollout, "time/score": score, "time/update": step - rollout - score}


class Timed(GRPOTrainer):
    """GRPOTrainer whose `clock` knows where the time of a step goes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.clock = _Clock()
        super().__init__(*args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        with self.clock("step"):
            return super().training_step(*args, **kwargs)

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        with self.clock("rollout"):
            return super()._generate(*args, **kwargs)

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
        with self.clock("score"):
            return super()._calculate_rewards(*args, **kwargs)


class Trainer(SkipZeroAdvantages, Timed):
    """The trainer of a run: validates each set under its own name, as [validation] samples."""

    sampling: tuple[float, float] = (1.0, 1.0)
    recorder: Any
    """Recorder of the run: it holds the scored rollouts and the name of the set that is being validated."""

    def prediction_step(self, model: Any, inputs: Any, *_: Any, **__: Any) -> tuple[torch.Tensor, None, None]:
        """Rollouts and their scores are all that a validation needs; their loss is not asked for."""
        self._prepare_inputs(inputs)
        return torch.zeros(()), None, None

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            self.recorder.measured = self.recorder.summary(TRAIN) | self.clock.lap()
            logs.update(_finite(self.recorder.measured))
        super().log(logs, start_time)

    def evaluate(self, eval_dataset: Any = None, **kwargs: Any) -> dict[str, float]:
        sets = eval_dataset if eval_dataset is not None else self.eval_dataset
        recorder = self.recorder
        out: dict[str, float] = {}
        spent = self.clock.spent.copy()
        with _sampling(self, *self.sampling), _rng_apart(recorder.config.seed + self.state.global_step):
            for name, dataset in sets.items():
                recorder.evaluating = name
                try:
                    super().evaluate(dataset, metric_key_prefix=f"eval_{name}")
                finally:
                    recorder.evaluating = None
                out |= of_validation(name, recorder.summary(name))
        self.clock.spent = spent
        recorder.folder.metrics(recorder.step, "validation", out)
        told = {f"eval_{key}": value for key, value in out.items()}
        self.log(_finite(told))
        return told


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    """What a logger can draw."""
    return {key: value for key, value in values.items() if math.isfinite(value)}


@contextlib.contextmanager
def _sampling(trainer: Any, temperature: float, top_p: float) -> Iterator[None]:
    """Sample as the validation asks, then as before."""
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
def _rng_apart(seed: int) -> Iterator[None]:
    """Draw from a generator of one's own, so that validation leaves the training's random numbers alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
