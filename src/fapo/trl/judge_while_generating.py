"""A rollout goes to the judge the moment it ends, while transformers' generate() still writes the others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from fapo.errors import ConfigError
from fapo.rewards.eager_scorer import EagerJudge, make_eager
from fapo.rewards.scorer import PolicyScorer
from fapo.trl.reward import FlawedAwareReward

PATIENCE = 10.0
"""Seconds in which cancelled requests are gone."""


class Finished(StoppingCriteria):
    """Stops nothing; tells of each sequence, once, when its first end token is there."""

    def __init__(self, ends: Sequence[int], tell: Callable[[int, list[int]], None]) -> None:
        """`tell` is given the row and the tokens after the prompt, the end token included."""
        self.ends, self.tell = torch.tensor(ends), tell
        self.start = 0
        self.over: torch.Tensor | None = None

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        """After each token: false for all [num_sequences]."""
        if self.over is None:
            self.start = input_ids.shape[1] - 1
            self.ends = self.ends.to(input_ids.device)
            self.over = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        new = torch.isin(input_ids[:, -1], self.ends) & ~self.over
        self.over |= new
        for row in new.nonzero().flatten().tolist():
            self.tell(row, input_ids[row, self.start :].tolist())
        return torch.zeros_like(self.over)


@dataclass(frozen=True)
class Overlap:
    """Where a trainer's finished rollouts go."""

    reward: FlawedAwareReward
    """The trainer's reward function, which will ask for the same rollouts."""
    ahead: EagerJudge
    """What its scorer asks, too."""

    def attach(self, trainer: Any) -> None:
        """Do so for every batch of a GRPOTrainer from now on."""
        plain = trainer._generate_and_score_completions

        def judged_as_they_end(inputs: Any) -> Any:
            with self(trainer, inputs):
                return plain(inputs)

        trainer._generate_and_score_completions = judged_as_they_end

    @contextlib.contextmanager
    def __call__(self, trainer: Any, inputs: Sequence[Mapping[str, Any]]) -> Iterator[None]:
        """Within the block, what the model generates for the rows of `inputs` is looked into as soon as it is there.

        What is never told of here, the reward function finds out by itself: rollouts cut off at the length limit, and
        all that vLLM or a tool has a part in.
        """
        columns = {key: [row[key] for row in inputs] for key in inputs[0]}
        tokenizer, loop = trainer.processing_class, trainer.async_loop

        def tell(row: int, tokens: list[int]) -> None:
            (text,) = tokenizer.batch_decode([tokens], skip_special_tokens=True)
            rollout = self.reward.rollout(row, inputs[row]["prompt"], text, tokens, columns)
            loop.call_soon_threadsafe(self.ahead.begin, rollout)

        with _told(trainer.accelerator.unwrap_model(trainer.model_wrapped), trainer.eos_token_ids, tell):
            try:
                yield
            except BaseException:
                with contextlib.suppress(TimeoutError):
                    asyncio.run_coroutine_threadsafe(self.ahead.cancel(), loop).result(PATIENCE)
                raise


def judge_ahead(trainer: Any) -> None:
    """Let the `flawed_aware_reward` of a GRPOTrainer ask about each rollout as soon as it has ended.

    Rewards and records stay the same. For a judge behind a server: one in this process would read rollouts one by one,
    with the processor or GPU that writes them. Raises ConfigError if the trainer has no such reward, or more than one.
    """
    rewards = [reward for reward in trainer.reward_funcs if isinstance(reward, FlawedAwareReward)]
    if len(rewards) != 1 or not isinstance(rewards[0].scorer, PolicyScorer) or not rewards[0].scorer.judge:
        raise ConfigError(f"judge_ahead: one flawed_aware_reward is needed in reward_funcs, not {len(rewards)}")
    rewards[0].scorer, ahead = make_eager(rewards[0].scorer)
    Overlap(rewards[0], ahead).attach(trainer)


@contextlib.contextmanager
def _told(model: Any, ends: Sequence[int], tell: Callable[[int, list[int]], None]) -> Iterator[None]:
    """Let a model's generate() tell of its finished sequences."""
    plain = model.generate

    def generate(*args: Any, **kwargs: Any) -> Any:
        return plain(*args, stopping_criteria=StoppingCriteriaList([Finished(ends, tell)]), **kwargs)

    model.generate = generate
    try:
        yield
    finally:
        del model.generate
