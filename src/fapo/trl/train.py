"""One machine: config -> trl.GRPOTrainer -> run folder. The trainer is TRL's own; what is ours is reward and record."""

from __future__ import annotations

import contextlib
import logging
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
from trl import GRPOConfig

from fapo.ahead import Ahead, ahead_of
from fapo.canaries import metrics_of
from fapo.config import Config, ServedJudge
from fapo.errors import ConfigError
from fapo.examples import TRAIN, Example, load_sets, make_scorer, truth
from fapo.files import atomic_path
from fapo.judge import verdict_from_row
from fapo.measure import advantage_metrics, flawed_rho_metrics, genrm_metrics, policy_metrics
from fapo.models import loading, model_folder
from fapo.overlap import Overlap
from fapo.runs import RunFolder, full_disk_told, rollout_row, take
from fapo.scoring import PolicyScorer, Scored, Scorer, advantages_of
from fapo.trainer import Trainer
from fapo.trl import FlawedAwareReward
from fapo.types import Judge, Message, Problem, Rollout, Verdict

Progress = Callable[[int, int, Mapping[str, Any]], None]
"""Told after each step: steps done, steps in all, metrics."""


def trainer_arguments(config: Config, world_size: int = 1) -> dict[str, Any]:
    """What each of TRL's trainers is told: optimizer, batches, checkpoints."""
    rollout, optim, val = config.rollout, config.optim, config.validation
    share = rollout.num_prompts * rollout.group_size // optim.updates_per_batch
    micro = optim.micro_batch_size or share // world_size
    if share % (micro * world_size):
        raise ConfigError(
            f"optim.micro_batch_size {micro} x {world_size} processes does not divide the {share} rollouts of an update"
        )
    updates = optim.updates_per_batch
    return {
        "output_dir": str(Path(config.output) / config.name / "checkpoints"),
        "seed": config.seed,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": share // (micro * world_size),
        "max_steps": optim.steps * updates,
        "learning_rate": optim.learning_rate,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": optim.warmup_steps * updates,
        "weight_decay": optim.weight_decay,
        "adam_beta1": optim.betas[0],
        "adam_beta2": optim.betas[1],
        "max_grad_norm": optim.max_grad_norm,
        "bf16": config.model.dtype == "bfloat16",
        "gradient_checkpointing": False,
        "logging_steps": updates,
        "logging_first_step": False,
        "save_steps": val.save_every * updates,
        "save_total_limit": 2,
        "eval_on_start": bool(config.data.validation),
        "report_to": "none",
        "run_name": config.name,
        "use_cpu": not torch.cuda.is_available(),
        "disable_tqdm": True,
    }


def grpo_config(config: Config, world_size: int = 1) -> GRPOConfig:
    """The exact TRL arguments of a run; the [trl] table has the last word."""
    rollout, optim, val = config.rollout, config.optim, config.validation
    arguments = trainer_arguments(config, world_size)
    micro = arguments["per_device_train_batch_size"]
    arguments |= {
        "steps_per_generation": arguments["gradient_accumulation_steps"] * optim.updates_per_batch,
        "num_generations": rollout.group_size,
        "max_completion_length": rollout.max_tokens,
        "temperature": rollout.temperature,
        "top_p": rollout.top_p,
        "loss_type": "dapo",
        "scale_rewards": "group",
        "beta": 0.0,
        "epsilon": optim.clip_low,
        "epsilon_high": optim.clip_high,
        "eval_strategy": "steps" if config.data.validation else "no",
        "eval_steps": val.every * optim.updates_per_batch,
        "num_generations_eval": val.num_samples,
        "per_device_eval_batch_size": 128 * val.num_samples if micro >= 64 else micro * val.num_samples,
    }
    try:
        return GRPOConfig(**{**arguments, **config.trl})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"[trl]: {error}") from None


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

    scorer, ahead = _judged_once(config, scorer, known)
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


def load_model(config: Config) -> tuple[Any, Any]:
    """The model to train, and its tokenizer. Raises ConfigError if there is none."""
    path = model_folder(config.model.path)
    with loading("model.path", path):
        tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left", trust_remote_code=False)
        model = load_weights(path, getattr(torch, config.model.dtype))
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer


def load_weights(path: str, dtype: torch.dtype) -> Any:
    """A model from a folder or a Hub id: safetensors only, and no code but transformers' own."""
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype, use_safetensors=True, trust_remote_code=False)


def save_model(trainer: Any, folder: RunFolder) -> None:
    """Save the trained model to `model/` in the run folder; that folder exists only when it is complete."""
    model, draft = folder.path / "model", folder.path / "model.tmp"  # one draft for all processes
    with contextlib.nullcontext() if folder.rank else atomic_path(model, draft):
        trainer.save_model(str(draft))


def last_checkpoint(folder: Path) -> tuple[int, str | None]:
    """Number and path of the newest checkpoint that is whole: trainer_state.json is written last. (0, None): none."""
    whole = {int(file.parent.name.rpartition("-")[2]): file for file in folder.glob("checkpoint-*/trainer_state.json")}
    newest = max(whole, default=0)
    return newest, str(whole[newest].parent) if whole else None


# --- data -------------------------------------------------------------------------------------------------------------


def _dataset(examples: Sequence[Example]) -> Dataset:
    return Dataset.from_list([_row(e.problem, e.prompt) for e in examples])


def _row(problem: Problem, prompt: list[Message]) -> dict[str, Any]:
    fields = {"id": problem.id, "problem": problem.text, "reference": problem.reference, "source": problem.source}
    return {"prompt": prompt, **fields}


def _judged_once(config: Config, scorer: Scorer, rows: Sequence[Mapping[str, Any]]) -> tuple[Scorer, Ahead | None]:
    """The scorer without questions that rows on record answer; and, where it may judge before a batch is complete, how.

    A judge in this process would only take from the rollouts the processors they are written with.
    """
    if not isinstance(scorer, PolicyScorer) or not scorer.judge:
        return scorer, None
    known, ahead = _on_record(rows), None
    if isinstance(config.judge, ServedJudge) and config.judge.overlap:
        scorer, ahead = ahead_of(scorer, known.keys())
    if known:
        assert scorer.judge
        scorer = replace(scorer, judge=_Remembering(scorer.judge, known))
    return scorer, ahead


def _on_record(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], Verdict]:
    """Problem id and response -> the verdict that an interrupted run has on it."""
    found = {(row["problem_id"], row["response"]): verdict_from_row(row) for row in rows}
    return {key: verdict for key, verdict in found.items() if verdict and verdict.status != "failed"}


class _Remembering:
    """A judge that first gives back the verdicts an interrupted run has on record."""

    def __init__(self, judge: Judge, known: Mapping[tuple[str, str], Verdict]) -> None:
        self.judge, self.known = judge, known

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Verdict]:
        keys = [(r.problem.id, r.response) for r in rollouts]
        new = [r for r, key in zip(rollouts, keys, strict=True) if key not in self.known]
        fresh = iter(await self.judge(new)) if new else iter(())
        return [self.known[key] if key in self.known else next(fresh) for key in keys]


# --- record -----------------------------------------------------------------------------------------------------------


class Recorder:
    """Takes every scored batch: writes the rollouts at once, the metrics when their step or validation is complete."""

    def __init__(self, config: Config, folder: RunFolder, scorer: Scorer) -> None:
        self.config, self.folder, self.scorer = config, folder, scorer
        self.trainer: Any = None
        self.batches: dict[str, list[Scored]] = defaultdict(list)
        self.evaluating: str | None = None
        """Name of the validation set under way; None while training."""
        self.measured: dict[str, float] = {}
        """Metrics of the training step that is being logged."""

    @property
    def step(self) -> int:
        return self.trainer.state.global_step // self.config.optim.updates_per_batch

    def record(self, scored: Sequence[Scored], columns: Mapping[str, list[Any]]) -> None:
        """Called by the reward function with each batch."""
        split = self.evaluating or "train"
        size = self.config.validation.num_samples if self.evaluating else self.config.rollout.group_size
        whole = size > 1 and len(scored) % size == 0  # several processes may share a group
        advantages = advantages_of(scored, size) if whole else [None] * len(scored)
        # rollouts of a training batch belong to the step they lead to
        step = self.step + (0 if self.evaluating else 1)
        self.folder.rollouts(
            {"step": step, "split": split, **rollout_row(s, a, truth(s, self.scorer))}
            for s, a in zip(scored, advantages, strict=True)
        )
        self.batches[split].extend(scored)

    def summary(self, split: str) -> dict[str, float]:
        """Metrics of all batches of a split since it was last asked for."""
        scored = self.batches.pop(split, [])
        if not scored:
            return {}
        truths = [truth(s, self.scorer) for s in scored]
        if self.config.task == "genrm":
            return genrm_metrics(scored, [t.error_step if t else None for t in truths])
        out = policy_metrics(scored, truths)
        if split == "train" and isinstance(self.scorer, PolicyScorer):
            out |= metrics_of(self.scorer.judge)
        group_size = self.config.rollout.group_size
        if split == "train" and len(scored) % group_size == 0:
            out |= advantage_metrics(scored, group_size, truths) | flawed_rho_metrics(scored, group_size, truths)
        return out


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
            self.progress(self.recorder.step, self.config.optim.steps, values)


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


def dry_run(config: Config, world_size: int = 1) -> dict[str, Any]:
    """What would be given to TRL, as a table."""
    arguments = {key: value for key, value in asdict(grpo_config(config, world_size)).items() if value is not None}
    return {key: getattr(value, "value", value) for key, value in arguments.items()}
