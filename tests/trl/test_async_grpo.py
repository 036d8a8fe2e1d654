"""The reward function in the rollout worker of TRL's AsyncGRPOTrainer, a daemonic process of its own."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from accelerate import PartialState
from datasets import Dataset
from transformers import AutoTokenizer
from trl.experimental.async_grpo import async_rollout_worker

from fapo.inference.models import model_folder
from fapo.trl import flawed_aware_reward
from tests.support.chat_server import Reply, chat_server
from tests.support.processes import wait_for
from tests.support.vllm_server import vllm_server

pytestmark = pytest.mark.slow
GROUP = 8
REFERENCES = {f"What is {n} + {n}?": str(2 * n) for n in range(1, 7)}


def write(prompt: str, index: int) -> str:
    """Write a right answer that computer algebra must check, or every fourth time a wrong one."""
    reference = next(reference for question, reference in REFERENCES.items() if question in prompt)
    return f"{'0' * (index % 3)}\n\\boxed{{{'0' if index % 4 == 3 else f'{reference}*(3-2)'}}}"


@dataclass
class Rollouts:
    """What the worker has done: with a judge that answers, and after it has broken down."""

    samples: list[Any] = field(default_factory=list)
    """Rollouts with their advantages, in order."""
    asked: list[str] = field(default_factory=list)
    """Prompts of the judge."""
    generated_meanwhile: bool = False
    """Whether vLLM was asked for further rollouts before the first verdict."""
    daemonic: bool = False
    """Whether the worker was a daemonic process."""
    reason: str = ""
    """Reason why the worker has ended."""


@pytest.fixture(scope="module")
def rollouts() -> Iterator[Rollouts]:
    """Run TRL's worker until its judge has broken down; only the check that vLLM is installed is left out."""
    found, broken = Rollouts(), threading.Event()
    PartialState(cpu=True)  # for the log of the worker
    tokenizer = AutoTokenizer.from_pretrained(model_folder("miniature:policy"))
    tokenizer.response_template = {
        "defaults": {"role": "assistant"},
        "start_anchor": "<|assistant|>",
        "fields": {"content": {"close_pattern": r"<\|end\|>|$", "content": "text"}},
    }
    rows = [{"prompt": [{"role": "user", "content": q}], "reference": r} for q, r in REFERENCES.items()]

    def judge(body: dict[str, Any], index: int) -> Reply:
        """Fail, answer nonsense, flag and pass in turn; fail always when it is broken."""
        if broken.is_set() or index % 4 == 0:
            return Reply(status=400)
        found.asked.append(body["messages"][-1]["content"])
        if not found.generated_meanwhile:
            num_requests = len(vllm.requests)
            wait_for(lambda: len(vllm.requests) > num_requests)
            found.generated_meanwhile = True
        return (Reply("No idea."), Reply("\\boxed{0}"), Reply("\\boxed{-1}"))[index % 4 - 1]

    with (
        pytest.MonkeyPatch.context() as patch,
        vllm_server(tokenizer, write, seconds_per_token=0.02) as vllm,
        chat_server(judge) as server,
    ):
        patch.setattr(async_rollout_worker, "is_vllm_available", lambda *_, **__: True)
        arguments: dict[str, Any] = {
            "model_name": "policy",
            "dataset": Dataset.from_list(rows),
            "reward_funcs": [flawed_aware_reward(server.url, model="genrm")],
            "processing_class": tokenizer,
            "eos_token_ids": [tokenizer.eos_token_id],
            "num_generations": GROUP,
            "max_inflight_tasks": 2 * GROUP,
            "queue_maxsize": GROUP,
            "score_queue_maxsize": 1000,  # so that generation never waits for the judge
            "vllm_server_url": vllm.url,
            "max_tokens": 64,
        }
        worker = async_rollout_worker.AsyncRolloutWorker(**arguments)
        try:
            worker.start()
            found.daemonic = worker._process.daemon
            found.samples += [worker.rollout_buffer.get(timeout=600) for _ in range(len(REFERENCES) * GROUP)]
            broken.set()
            wait_for(lambda: _drained(worker.rollout_buffer) and worker._failed_event.is_set())
            wait_for(lambda: _reason_has_arrived(worker, found))
        finally:
            if worker._process:  # not `worker.stop()`, which waits without end for a process that has ended
                worker._process.kill()
                worker._process.join()
    yield found


def _drained(rollouts: Any) -> bool:
    """Empty the queue of rollouts, because a full one stops the worker."""
    with contextlib.suppress(queue.Empty):
        while True:
            rollouts.get_nowait()
    return True


def _reason_has_arrived(worker: async_rollout_worker.AsyncRolloutWorker, found: Rollouts) -> bool:
    """Ask a worker that has failed for its reason, which it sends from a thread and so may arrive after the failure."""
    with pytest.raises(RuntimeError, match="has failed") as raised:
        worker.check_health(stale_after_s=600)
    found.reason = str(raised.value.__cause__ or "")
    return bool(found.reason)


def test_what_has_no_verdict_is_left_out_of_its_group(rollouts: Rollouts) -> None:
    values: set[float] = set()
    for start in range(0, len(rollouts.samples), GROUP):
        group = rollouts.samples[start : start + GROUP]
        rewards = np.array([sample.metrics["rewards/fapo_reward"] for sample in group])
        unscored = np.isnan(rewards)
        scored = rewards[~unscored]
        expected = np.where(unscored, 0, (rewards - scored.mean()) / (scored.std() + 1e-8))
        assert [sample.advantage for sample in group] == pytest.approx(list(expected))
        values |= set(scored)
    assert values == {-1, 0, 1}
    assert any(np.isnan(sample.metrics["reward"]) for sample in rollouts.samples)


def test_answers_are_checked_in_a_daemonic_process(rollouts: Rollouts) -> None:
    assert rollouts.daemonic
    for sample in rollouts.samples:
        wrong = "\\boxed{0}" in sample.completion[0]["content"]
        assert (sample.metrics["rewards/fapo_reward"] == -1) == wrong, "computer algebra decides"
    assert all("*(3-2)" in prompt for prompt in rollouts.asked), "only right rollouts are judged"


def test_a_group_is_judged_while_others_are_generated(rollouts: Rollouts) -> None:
    assert rollouts.generated_meanwhile


def test_a_dead_judge_stops_the_trainer_with_its_reason(rollouts: Rollouts) -> None:
    assert rollouts.reason.startswith("JudgeDownError: the judge")
