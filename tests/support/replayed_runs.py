"""Train one config with several numbers of processes on the same rollouts.

    python -m tests.support.replayed_runs CONFIG.json NUM_PROCESSES ...

Runs are named by the number of processes. A rollout depends only on its problem, its index in the group, the step and
whether it is of a validation, so that all runs have the same ones. Processes are forked from one that has imported
everything, and find each other as those of `torchrun` do.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from trl import GRPOTrainer

from experiments.base_models.writers import Habits, trace
from fapo.config.reader import from_dict
from fapo.config.schema import JudgeConfig, OracleJudge
from fapo.data.load import load_labelled
from fapo.data.miniature.world import parse
from fapo.judge.canaries import Canaries
from fapo.judge.oracle import oracle
from fapo.judge.switching import SwitchingJudge
from fapo.rewards import from_config, verify
from fapo.trl.train import train
from fapo.types import Judge, Rollout, Verdict
from tests.support.ports import free_port

SECONDS = 600
"""Time of one training. Processes that wait for each other longer end and say where: nobody else can end them all."""
HABITS = Habits(borrow=0.3, slip=0.1, guess=0.3)


def chance(*key: object) -> float:
    """Return a number in [0, 1) that depends on the key alone."""
    return random.Random(repr(key)).random()


async def sometimes_silent(rollouts: Sequence[Rollout]) -> list[Verdict]:
    """Judge as the oracle does, but fail for a tenth of the solutions."""
    verdicts = await oracle()(rollouts)
    silent = [chance(rollout.response) < 0.1 for rollout in rollouts]
    return [Verdict("failed", reason="silent") if s else v for s, v in zip(silent, verdicts, strict=True)]


def _judge(config: JudgeConfig, *, seed: int, model: object = None) -> Canaries:
    """Return that judge, or an oracle with the blind spot of the config, with the canaries of the config."""
    assert config.canaries
    assert isinstance(config, OracleJudge)
    judge: Judge = oracle(blind_to=config.blind_to) if config.blind_to else sometimes_silent
    if config.audit and config.audit.switches:
        judge = SwitchingJudge(judge)
    return Canaries(judge, load_labelled(config.canaries), config.canary_rate, 0.0, seed)


def written(trainer: Any, prompt_ids: list[list[int]], _: Any, __: Any, num_generations: int) -> Any:
    """Return the token ids of a rollout for each prompt; this replaces generation in TRL's trainer."""
    tokenizer, first = trainer.processing_class, trainer.accelerator.process_index * len(prompt_ids)
    completions = []
    for i, prompt in enumerate(tokenizer.batch_decode(prompt_ids, skip_special_tokens=True), first):
        task = parse(prompt[prompt.index("start") :].strip())
        key = trainer.state.global_step, trainer.model.training, task.text, i % num_generations
        text = trace(random.Random(repr(key)), task, HABITS)
        ids = [*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id]
        completions.append(ids[: trainer.max_completion_length])
    return completions, None


def work(rank: int, num_processes: int, port: int, table: dict[str, Any]) -> None:
    """Train as one of several processes."""
    faulthandler.dump_traceback_later(SECONDS, exit=True)
    for name in ("RANK", "LOCAL_RANK"):
        os.environ[name] = str(rank)
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        os.environ[name] = str(num_processes)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    GRPOTrainer._generate_single_turn = written
    from_config.make_judge = _judge
    train(from_dict(table | {"name": f"processes-{num_processes}"}))
    verify.shutdown()


def main() -> None:
    """Train once for each number of processes on the command line."""
    table = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for num_processes in map(int, sys.argv[2:]):
        arguments = (num_processes, free_port(), table)
        torch.multiprocessing.start_processes(work, arguments, nprocs=num_processes, start_method="fork")


if __name__ == "__main__":
    main()
