"""Reinforcement learning on one machine: config -> trl.GRPOTrainer -> run folder."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from transformers import PrinterCallback

from fapo.config.schema import AdapterJudge, Config, JudgeRequests
from fapo.data.trajectory import opens_thinking
from fapo.rewards.critique_scorer import Scorer
from fapo.rewards.eager_scorer import EagerJudge, make_eager
from fapo.rewards.from_config import make_scorer
from fapo.rewards.scorer import PolicyScorer
from fapo.training.datasets import TRAIN, Example, load_sets
from fapo.training.recorder import Recorder
from fapo.training.run_folder import with_cache
from fapo.training.stop_rules import without_stops
from fapo.trl.arguments import grpo_config
from fapo.trl.callbacks import MetricsCallback
from fapo.trl.checkpoints import load_model
from fapo.trl.judge_while_generating import submit_rollouts
from fapo.trl.lora import AdapterModel, peft_config
from fapo.trl.reward import FlawedAwareReward
from fapo.trl.run import open_run
from fapo.trl.trainer import Trainer
from fapo.types import Progress


def train(config: Config, *, resume: bool = False, progress: Progress | None = None) -> Path:
    """Run a config and return its run folder, with the trained model in `model/`.

    Args:
        config: Config with method "rl".
        resume: Whether an interrupted run continues from its last checkpoint, with the same result as without the
            interruption. Critiques of rollouts after that checkpoint come from the cache.
        progress: Progress callback, called after each step.

    Returns:
        Path of the run folder.

    Raises:
        ConfigError: If a setting cannot work; nothing has been trained then.
        DataError: If a data set cannot be used.
        JudgeDownError: If the judge fails for too many rollouts.
        UnscoredError: If there is no verdict on a rollout, and `reward.on_unscored` is "raise".
        KeyboardInterrupt: After Ctrl-C, see `fapo.trl.callbacks.graceful_stop`.
    """
    torch.manual_seed(config.seed)
    processes = PartialState(cpu=not torch.cuda.is_available())
    arguments = grpo_config(config, processes.num_processes)
    sets = load_sets(config)
    solutions = (e.solution for examples in sets.values() for e in examples if e.solution)
    cached = _with_cache(config)
    adapter_judge = AdapterModel(config.judge, config.model) if isinstance(config.judge, AdapterJudge) else None
    scorer = make_scorer(without_stops(cached), solutions, judge_model=adapter_judge)
    model, tokenizer = load_model(config)
    run = open_run(config, arguments, resume=resume, rank=processes.process_index)
    scorer, eager = _wrapped(config, scorer)
    recorder = Recorder(cached, run.folder, scorer, gather_object)
    template_options = arguments.chat_template_kwargs or {}
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "?"}], add_generation_prompt=True, tokenize=False, **template_options
    )
    reward = FlawedAwareReward(scorer, recorder.record, opens_thinking(prompt))
    datasets = {name: _dataset(examples) for name, examples in sets.items()}
    trainer = Trainer(
        model=run.with_final_weights(model),
        processing_class=tokenizer,
        peft_config=peft_config(config, model),
        reward_funcs=reward,
        args=arguments,
        train_dataset=datasets.pop(TRAIN),
        eval_dataset=datasets or None,
        callbacks=[MetricsCallback(config, recorder, progress)],
    )
    if adapter_judge:
        adapter_judge.attach(trainer)
    if eager:
        submit_rollouts(trainer, reward, eager)
    trainer.validation_sampling = (config.validation.temperature, config.validation.top_p)
    trainer.remove_callback(PrinterCallback)
    recorder.trainer, trainer.recorder = trainer, recorder
    run.train(trainer)
    return run.folder.path


def _dataset(examples: Sequence[Example]) -> Dataset:
    """Return examples with the columns that `FlawedAwareReward` reads."""
    return Dataset.from_list(
        [
            {
                "prompt": example.prompt,
                "id": example.problem.id,
                "problem": example.problem.text,
                "reference": example.problem.reference,
                "source": example.problem.source,
            }
            for example in examples
        ]
    )


def _with_cache(config: Config) -> Config:
    """Return the config with a cache of critiques, one for each node. All processes call this function."""
    nodes = list(dict.fromkeys(gather_object([socket.gethostname()])))  # in the order of the processes
    return with_cache(config, num_nodes=len(nodes), node=str(nodes.index(socket.gethostname())))


def _wrapped(config: Config, scorer: Scorer) -> tuple[Scorer, EagerJudge | None]:
    """Return the scorer for this engine; and its eager judge if a served judge may be one, else None.

    A judge in this process is never eager: it would slow down the generation of the rollouts. Nor is one that such
    a judge may replace.
    """
    if not isinstance(scorer, PolicyScorer) or not scorer.judge:
        return scorer, None
    judges = [judge for _, judge in config.rewarding_judges]
    eager = all(isinstance(judge, JudgeRequests) and judge.num_requests and judge.overlap for judge in judges)
    return make_eager(scorer) if eager else (scorer, None)
