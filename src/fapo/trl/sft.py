"""Supervised training of a GenRM on one machine: config -> trl.SFTTrainer -> run folder.

The model imitates the critiques in its data. Batches, steps, validation and checkpoints are those of `fapo.trl.train`,
so that runs of the two methods can be compared: the number of critiques in an update is the number of rollouts in an
update of reinforcement learning.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from trl import SFTTrainer

from fapo.config.sampling import Sampling
from fapo.config.schema import Config
from fapo.data.trajectory import make_rollout
from fapo.errors import ConfigError
from fapo.inference.transformers_model import LocalModel
from fapo.rewards.critique_scorer import CritiqueScorer
from fapo.rewards.from_config import make_scorer
from fapo.training.datasets import TRAIN, Example, Sets, load_sets
from fapo.training.recorder import Recorder
from fapo.training.step_metrics import validation_metrics
from fapo.trl.arguments import sft_config
from fapo.trl.callbacks import MetricsCallback
from fapo.trl.checkpoints import load_model
from fapo.trl.lora import peft_config
from fapo.trl.run import open_run
from fapo.types import Progress, Rollout


def train(config: Config, *, resume: bool = False, progress: Progress | None = None) -> Path:
    """Run a config with method "sft" and return its run folder, with the trained model in `model/`.

    Args:
        config: Config with method "sft".
        resume: Whether an interrupted run continues from its last checkpoint.
        progress: Progress callback, called after each step.

    Returns:
        Path of the run folder.

    Raises:
        ConfigError: If a setting cannot work, the data has no critiques, or several processes train.
        DataError: If a data set cannot be used.
        KeyboardInterrupt: After Ctrl-C, see `fapo.trl.callbacks.graceful_stop`.
    """
    torch.manual_seed(config.seed)
    if PartialState(cpu=not torch.cuda.is_available()).num_processes > 1:
        raise ConfigError('method "sft" runs in one process; start it without accelerate')
    arguments = sft_config(config)
    sets = load_sets(config)
    scorer = make_scorer(config, (e.solution for examples in sets.values() for e in examples if e.solution))
    assert isinstance(scorer, CritiqueScorer)
    critiques = _dataset(config, sets.pop(TRAIN))
    model, tokenizer = load_model(config)
    run = open_run(config, arguments, resume=resume)
    recorder = Recorder(config, run.folder, scorer)
    trainer = _Trainer(
        model=run.with_final_weights(model),
        processing_class=tokenizer,
        peft_config=peft_config(config, model),
        args=arguments,
        train_dataset=critiques,
        callbacks=[MetricsCallback(config, recorder, progress), _ValidationCallback(config)],
    )
    trainer.recorder, trainer.scorer, trainer.sets = recorder, scorer, sets
    trainer.remove_callback(PrinterCallback)
    recorder.trainer = trainer
    run.train(trainer)
    return run.folder.path


def _dataset(config: Config, examples: Sequence[Example]) -> Dataset:
    """Return prompts and critiques as TRL's prompt-completion data."""
    rows = []
    for example in examples:
        critique = example.solution.critique if example.solution else ""
        if not critique:
            raise ConfigError(
                f"data.train: {config.data.train}: row {example.problem.id!r} has no critique; "
                "fapo critiques makes such data"
            )
        rows.append({"prompt": example.prompt, "completion": [{"role": "assistant", "content": critique}]})
    return Dataset.from_list(rows)


class _ValidationCallback(TrainerCallback):
    """Callback that starts a validation every `validation.every` steps.

    The trainer's own `eval_strategy` would require a data set of critiques.
    """

    def __init__(self, config: Config) -> None:
        self.every = config.validation.every * config.optim.updates_per_batch if config.data.validation else 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.every and state.global_step % self.every == 0:
            control.should_evaluate = True


class _Trainer(SFTTrainer):
    """SFTTrainer that validates as reinforcement learning does: it samples critiques and scores them."""

    recorder: Recorder
    scorer: CritiqueScorer
    sets: Sets
    """Validation sets by name."""

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        recorder, config = self.recorder, self.recorder.config
        self.model.eval()
        out: dict[str, float] = {}
        for name, examples in self.sets.items():
            rollouts = self._sampled_critiques(config, examples)
            recorder.evaluating = name
            try:
                recorder.record([self.scorer.score(rollout) for rollout in rollouts], {})
                recorder.write()
            finally:
                recorder.evaluating = None
            out |= validation_metrics(name, recorder.summary(name))
        self.model.train()
        recorder.folder.metrics(recorder.step, "validation", out)
        metrics = {f"eval_{key}": value for key, value in out.items()}
        # without this the trainer would validate again
        self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _sampled_critiques(self, config: Config, examples: Sequence[Example]) -> list[Rollout]:
        """Return `validation.num_samples` critiques of each example."""
        validation, max_tokens = config.validation, config.rollout.max_tokens
        sampling = Sampling(temperature=validation.temperature, top_p=validation.top_p, max_tokens=max_tokens)
        seed = config.seed + self.state.global_step
        model = LocalModel(self.model, self.processing_class, sampling, seed=seed)
        repeated = [example for example in examples for _ in range(validation.num_samples)]
        answers = model.generate([example.prompt for example in repeated])
        # the end token counts, as it does among the tokens of a rollout in training
        return [
            make_rollout(
                example.problem, answer.text, answer.num_tokens + (not answer.truncated), truncated=answer.truncated
            )
            for example, answer in zip(repeated, answers, strict=True)
        ]
