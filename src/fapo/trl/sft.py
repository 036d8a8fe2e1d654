"""One machine, supervised: config -> trl.SFTTrainer -> run folder, for a GenRM that imitates the critiques in its data.

Batches, steps, validation and checkpoints are those of `train_trl`, so that the runs can be compared: an update sees
as many critiques as there are rollouts in an update of reinforcement learning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from fapo.config.schema import Config
from fapo.errors import ConfigError
from fapo.inference.transformers_model import LocalModel
from fapo.rewards.critique_scorer import CritiqueScorer
from fapo.rewards.from_config import make_scorer
from fapo.training.datasets import TRAIN, Example, Sets, load_sets
from fapo.training.recorder import Recorder
from fapo.training.run_folder import RunFolder
from fapo.training.run_lock import full_disk_told, take
from fapo.training.step_metrics import of_validation
from fapo.trl.arguments import trainer_arguments
from fapo.trl.callbacks import Callback, stop_politely
from fapo.trl.checkpoints import last_checkpoint, load_model, load_weights, save_model
from fapo.types import Progress, Rollout


def sft_config(config: Config) -> SFTConfig:
    """The exact TRL arguments of a run; the [trl] table has the last word."""
    arguments = trainer_arguments(config) | {"completion_only_loss": True, "max_length": None, "packing": False}
    try:
        return SFTConfig(**{**arguments, **config.trl})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"[trl]: {error}") from None


def train(config: Config, *, resume: bool = False, progress: Progress | None = None) -> Path:
    """Run a config with method "sft"; returns the run folder, as `train_trl.train` does. One process only."""
    torch.manual_seed(config.seed)
    if PartialState(cpu=not torch.cuda.is_available()).num_processes > 1:
        raise ConfigError('method "sft" runs in one process; start it without accelerate')
    arguments = sft_config(config)
    sets = load_sets(config)
    scorer = make_scorer(config, (e.solution for examples in sets.values() for e in examples if e.solution))
    assert isinstance(scorer, CritiqueScorer)
    examples = _dataset(config, sets.pop(TRAIN))
    model, tokenizer = load_model(config)
    folder = RunFolder(config, resume=resume)
    take(folder.path)
    done, checkpoint = last_checkpoint(folder.checkpoints) if resume else (0, None)
    folder.rewind(done // config.optim.updates_per_batch if checkpoint else -1)
    finished = done >= arguments.max_steps
    if checkpoint and finished:
        model = load_weights(checkpoint, model.dtype)
    arguments.eval_on_start = arguments.eval_on_start and not checkpoint

    recorder = Recorder(config, folder, scorer)
    trainer = _Trainer(
        model=model,
        processing_class=tokenizer,
        args=arguments,
        train_dataset=examples,
        callbacks=[Callback(config, recorder, progress), _Validation(config)],
    )
    trainer.recorder, trainer.scorer, trainer.sets = recorder, scorer, sets
    trainer.remove_callback(PrinterCallback)
    recorder.trainer = trainer
    with stop_politely(trainer), full_disk_told(folder.path):
        if not finished:
            trainer.train(resume_from_checkpoint=checkpoint)
    with full_disk_told(folder.path):
        save_model(trainer, folder)
    return folder.path


def _dataset(config: Config, examples: Sequence[Example]) -> Dataset:
    """Prompt and critique of each training row."""
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


class _Validation(TrainerCallback):
    """Asks for a validation every so many steps; the trainer's own rule wants a data set of critiques."""

    def __init__(self, config: Config) -> None:
        self.every = config.validation.every * config.optim.updates_per_batch if config.data.validation else 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.every and state.global_step % self.every == 0:
            control.should_evaluate = True


class _Trainer(SFTTrainer):
    """SFTTrainer whose validation samples critiques and scores them, as in reinforcement learning."""

    recorder: Recorder
    scorer: CritiqueScorer
    sets: Sets

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        recorder, config = self.recorder, self.recorder.config
        sampling: dict[str, Any] = {"temperature": config.validation.temperature, "top_p": config.validation.top_p}
        limit, seed = config.rollout.max_tokens, config.seed + self.state.global_step
        model = LocalModel(self.model, self.processing_class, limit, **sampling, seed=seed)
        self.model.eval()
        out: dict[str, float] = {}
        for name, examples in self.sets.items():
            asked = [example for example in examples for _ in range(config.validation.num_samples)]
            answers = model.generate([example.prompt for example in asked])
            written = [
                Rollout.from_text(e.problem, answer.text, answer.num_tokens, limit)
                for e, answer in zip(asked, answers, strict=True)
            ]
            # the end token counts, as it does among the tokens of a rollout in training
            rollouts = [replace(rollout, num_tokens=min(rollout.num_tokens + 1, limit)) for rollout in written]
            recorder.evaluating = name
            try:
                recorder.record([self.scorer.score(rollout) for rollout in rollouts], {})
            finally:
                recorder.evaluating = None
            out |= of_validation(name, recorder.summary(name))
        self.model.train()
        recorder.folder.metrics(recorder.step, "validation", out)
        metrics = {f"eval_{key}": value for key, value in out.items()}
        self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)  # it is done: not again
        return metrics


def dry_run(config: Config) -> dict[str, Any]:
    """What would be given to TRL, as a table."""
    arguments = {key: value for key, value in asdict(sft_config(config)).items() if value is not None}
    return {key: getattr(value, "value", value) for key, value in arguments.items()}
