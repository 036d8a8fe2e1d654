"""Measure what judging adds to a step of AsyncGRPOTrainer: TRL scores rollouts beside their generation there.

python -m benchmarks.async_grpo [--quick] [--rounds 3] [--steps 4] [--seconds 3]

TRL's own rollout worker, in its own process, asks a simulated vLLM for rollouts and scores them with
`flawed_aware_reward`. The simulated vLLM takes as long as the tokens of a rollout ask for. The trainer is simulated,
because TRL's needs a GPU: a step takes a batch of rollouts from the queue and sleeps 33/42 of the time in which vLLM
generates a batch. This is the proportion of the paper: rollouts 42, judge 18, update 33. All answers are right. Sides:

    no judge      the answers are checked, and a judge in the worker passes all at once
    judge         the judge answers so fast that its work on the groups of a step, one after the other, takes 18/42 of
                  the generation
    slow judge    it takes 2.5 times as long as the judge, and thus longer than the generation

TRL scores one group after the other. A judge therefore costs nothing as long as it needs less time for a group than
vLLM does.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import trl.experimental.async_grpo.async_rollout_worker as trl_worker
from accelerate import PartialState
from datasets import Dataset
from transformers import AutoTokenizer

from benchmarks.measuring.slow_judge import JUDGE, ROLLOUT, UPDATE
from benchmarks.measuring.turns import in_turn, machine, ratios, spread
from fapo.data import load_problems
from fapo.inference.models import model_folder
from fapo.trl import flawed_aware_reward
from fapo.types import Rollout, Verdict
from tests.support.chat_server import Reply, chat_server
from tests.support.vllm_server import vllm_server

GROUP, GROUPS = 8, 4
"""Rollouts of a group, and groups of a step."""
SIDES = {"no judge": 0.0, "judge": 1.0, "slow judge": 2.5}
"""Factor by which the answers of the judge of each side are slower than in the proportion of the paper."""


@dataclass(frozen=True)
class Turn:
    """What one turn of one side took."""

    step: float
    """Median seconds of a step."""
    judged: float
    """Mean seconds for which the worker scored a group."""


def turn(side: str, num_steps: int, seconds: float) -> Turn:
    """Run some steps of one side and return their time; the first step, which fills the queues, is not counted."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder("miniature:policy"))
    tokenizer.response_template = {
        "defaults": {"role": "assistant"},
        "start_anchor": "<|assistant|>",
        "fields": {"content": {"close_pattern": r"<\|end\|>|$", "content": "text"}},
    }
    problems = load_problems("miniature:train", limit=64)
    references = {problem.text: problem.reference for problem in problems}
    rows = [{"prompt": [{"role": "user", "content": p.text}], "reference": p.reference} for p in problems]

    def write(prompt: str, index: int) -> str:
        return f"1+1=2\n\\boxed{{{next(r for text, r in references.items() if text in prompt)}}}"

    num_tokens = len(tokenizer(write(problems[0].text, 0)).input_ids) + 1
    delay = SIDES[side] * seconds / GROUPS * JUDGE / ROLLOUT
    with (
        vllm_server(tokenizer, write, seconds / num_tokens) as vllm,
        chat_server(Reply("\\boxed{-1}", delay=delay)) as server,
    ):
        reward = flawed_aware_reward(server.url if SIDES[side] else passing, model="genrm")
        worker = trl_worker.AsyncRolloutWorker(
            model_name="policy",
            dataset=Dataset.from_list(rows),
            reward_funcs=[reward],
            processing_class=tokenizer,
            eos_token_ids=[tokenizer.eos_token_id],
            num_generations=GROUP,
            max_inflight_tasks=GROUP * GROUPS,
            queue_maxsize=GROUP * GROUPS,
            vllm_server_url=vllm.url,
            max_tokens=64,
        )
        worker.start()
        try:
            ends = []
            for _ in range(num_steps + 2):
                for _ in range(GROUP * GROUPS):
                    worker.rollout_buffer.get(timeout=60 + 10 * seconds)
                time.sleep(seconds * UPDATE / ROLLOUT)
                ends.append(time.monotonic())
            scored = []
            while not worker.metrics_queue.empty():
                scored.append(worker.metrics_queue.get().get("rollout/score_s"))
        finally:
            worker.stop()
    steps = [end - start for start, end in pairwise(ends[1:])]
    return Turn(statistics.median(steps), statistics.mean(value for value in scored if value is not None))


async def passing(rollouts: Sequence[Rollout]) -> list[Verdict]:
    """Return a verdict without a flaw for each rollout, at once."""
    return [Verdict.from_step(None)] * len(rollouts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of two short steps")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds in which vLLM generates a batch")
    options = parser.parse_args()
    rounds, steps, seconds = (1, 2, 2.0) if options.quick else (options.rounds, options.steps, options.seconds)
    logging.getLogger("trl").setLevel(logging.ERROR)
    PartialState(cpu=True)
    trl_worker.is_vllm_available = lambda *_, **__: True
    found = in_turn({side: lambda _, side=side: turn(side, steps, seconds) for side in SIDES}, rounds)
    print(f"{GROUPS} groups of {GROUP}; generation {seconds:g} s, update {seconds * UPDATE / ROLLOUT:.2f} s a step")
    print("\n| side | s/step | x no judge | s to score a group |\n|---|---|---|---|")
    base = [result.step for result in found["no judge"]]
    for side, turns in found.items():
        times = [result.step for result in turns]
        print(f"| {side} | {spread(times)} | {spread(ratios(times, base))} | {spread([t.judged for t in turns])} |")
    print(f"\n{machine('trl')}")


if __name__ == "__main__":
    main()
