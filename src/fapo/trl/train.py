"""One machine: config -> trl.GRPOTrainer -> run folder. The trainer is TRL's own; what is ours is reward and record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import PrinterCallback

from fapo.config.schema import Config, ServedJudge
from fapo.judge.resume import recorded_verdicts
from fapo.rewards.critique_scorer import Scorer
from fapo.rewards.eager_scorer import EagerJudge
from fapo.rewards.from_config import make_scorer, wrap_judge
from fapo.rewards.scorer import PolicyScorer
from fapo.training.datasets import TRAIN, Example, load_sets
from fapo.training.recorder import Recorder
from fapo.training.run_folder import RunFolder
from fapo.training.run_lock import full_disk_told, take
from fapo.trl.arguments import grpo_config
from fapo.trl.callbacks import Callback, stop_politely
from fapo.trl.checkpoints import last_checkpoint, load_model, load_weights, save_model
from fapo.trl.judge_while_generating import Overlap
from fapo.trl.reward import FlawedAwareReward
from fapo.trl.trainer import Trainer
from fapo.types import Message, Problem, Progress


def train(config: Config, *, resume: bool = False, progress: Progress | None = None) -> Path:
    """Run a config; returns the run folder, with the trained model in it under `model/`.

    With `resume` an interrupted run goes on from its last checkpoint, on the same curve; verdicts of rollouts made
    since that checkpoint are taken from the record, not asked for again. Raises ConfigError for settings that cannot
    work, before anything is trained.
    """
    torch.manual_seed(config.seed)
    processes = PartialState(cpu=not torch.cuda.is_available())
    arguments = grpo_config(config, processes.num_processes)
    sets = load_sets(config)
    scorer = make_scorer(config, (e.solution for examples in sets.values() for e in examples if e.solution))
    model, tokenizer = load_model(config)
    folder = RunFolder(config, resume=resume, rank=processes.process_index)
    if not folder.rank:
        take(folder.path)
    done, checkpoint = last_checkpoint(folder.checkpoints) if resume else (0, None)
    known = folder.rewind(done // config.optim.updates_per_batch if checkpoint else -1)
    finished = done >= arguments.max_steps
    if checkpoint and finished:
        model = load_weights(checkpoint, model.dtype)
    arguments.eval_on_start = arguments.eval_on_start and not checkpoint

    scorer, ahead = _wrapped(config, scorer, known)
    recorder = Recorder(config, folder, scorer)
    reward = FlawedAwareReward(scorer, recorder.record)
    datasets = {name: _dataset(examples) for name, examples in sets.items()}
    trainer = Trainer(
        model=model,
        processing_class=tokenizer,
        reward_funcs=reward,
        args=arguments,
        train_dataset=datasets.pop(TRAIN),
        eval_dataset=datasets or None,
        callbacks=[Callback(config, recorder, progress)],
    )
    if ahead:
        Overlap(reward, ahead).attach(trainer)
    trainer.sampling = (config.validation.temperature, config.validation.top_p)
    trainer.remove_callback(PrinterCallback)
    recorder.trainer, trainer.recorder = trainer, recorder
    with stop_politely(trainer), full_disk_told(folder.path):
        if not finished:  # the trainer would do one step more
            trainer.train(resume_from_checkpoint=checkpoint)
    with full_disk_told(folder.path):
        save_model(trainer, folder)
    return folder.path


# --- data -------------------------------------------------------------------------------------------------------------


def _dataset(examples: Sequence[Example]) -> Dataset:
    return Dataset.from_list([_row(e.problem, e.prompt) for e in examples])


def _row(problem: Problem, prompt: list[Message]) -> dict[str, Any]:
    fields = {"id": problem.id, "problem": problem.text, "reference": problem.reference, "source": problem.source}
    return {"prompt": prompt, **fields}


def _wrapped(config: Config, scorer: Scorer, rows: Sequence[Mapping[str, Any]]) -> tuple[Scorer, EagerJudge | None]:
    """Return the scorer, wrapped to reuse verdicts found in `rows`; and for a served judge the eager judge, else None.

    A judge in this process is never eager: it would slow down the generation of the rollouts.
    """
    if not isinstance(scorer, PolicyScorer) or not scorer.judge:
        return scorer, None
    eager = isinstance(config.judge, ServedJudge) and config.judge.overlap
    return wrap_judge(scorer, recorded=recorded_verdicts(rows), eager=eager)
