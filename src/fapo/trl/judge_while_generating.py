"""Judge each rollout as soon as it ends, while transformers' `generate` still writes the others of its batch.

TRL has no hook for this. `GRPOTrainer._generate_and_score_completions` is replaced on the trainer, and `generate` on
its model while a batch is being written (see `fapo.trl.version`).
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList
from trl.chat_template_utils import parse_response

from fapo.errors import ConfigError
from fapo.rewards.eager_scorer import EagerJudge, make_eager
from fapo.rewards.scorer import PolicyScorer
from fapo.trl.reward import FlawedAwareReward
from fapo.trl.version import require_methods, warn_unless_checked

CANCEL_TIMEOUT = 10.0
"""Seconds to wait for the end of requests that are cancelled."""

OnEnd = Callable[[int, list[int], list[int]], None]
"""Function that is called when a sequence has ended, see `SequenceEnds`."""


class SequenceEnds(StoppingCriteria):
    """Criterion that never stops generation. It calls a function once for each sequence, at its first end token."""

    def __init__(self, end_tokens: Sequence[int], on_end: OnEnd) -> None:
        """Watch one call of `generate`.

        Args:
            end_tokens: Ids of the tokens that end a sequence.
            on_end: Function that is called with the index of the sequence in its batch, the ids of its prompt with
                padding, and the ids of the tokens that the model wrote, the end token included.
        """
        self.end_tokens, self.on_end = torch.tensor(end_tokens), on_end
        self.prompt_length = 0
        self.ended: torch.Tensor | None = None

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        """Look at the last token of each sequence.

        Args:
            input_ids: Prompts and what was written so far [num_sequences, length].
            scores: Not used.

        Returns:
            False for each sequence [num_sequences].
        """
        if self.ended is None:  # the first call comes after the first token
            self.prompt_length = input_ids.shape[1] - 1
            self.end_tokens = self.end_tokens.to(input_ids.device)
            self.ended = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        new = torch.isin(input_ids[:, -1], self.end_tokens) & ~self.ended
        self.ended |= new
        for row in new.nonzero().flatten().tolist():
            ids = input_ids[row].tolist()
            self.on_end(row, ids[: self.prompt_length], ids[self.prompt_length :])
        return torch.zeros_like(self.ended)


def judge_ahead(trainer: Any) -> None:
    """Let the `flawed_aware_reward` of a GRPOTrainer judge each rollout as soon as it has ended.

    Rewards and logs stay the same. Use it for a judge behind a server: a judge in this process would compete for the
    processor or GPU with the model that writes, and would judge rollouts one by one.

    Args:
        trainer: A `trl.GRPOTrainer` with one `flawed_aware_reward` among its `reward_funcs`.

    Raises:
        ConfigError: If the trainer has no such reward, or more than one.
        EngineError: If the trainer lacks the private method of TRL's that is replaced.
    """
    require_methods(type(trainer), ("_generate_and_score_completions",), "judge_ahead")
    rewards = [reward for reward in trainer.reward_funcs if isinstance(reward, FlawedAwareReward)]
    if len(rewards) != 1 or not isinstance(rewards[0].scorer, PolicyScorer) or not rewards[0].scorer.judge:
        raise ConfigError(f"judge_ahead: one flawed_aware_reward is needed in reward_funcs, not {len(rewards)}")
    rewards[0].scorer, eager = make_eager(rewards[0].scorer)
    submit_rollouts(trainer, rewards[0], eager)


def submit_rollouts(trainer: Any, reward: FlawedAwareReward, eager: EagerJudge) -> None:
    """Submit each rollout of a GRPOTrainer to an eager judge as soon as it has ended, from now on.

    Rollouts that end in another way are scored later, as usual: those cut off by the length limit, and those written by
    vLLM or with tools.

    Args:
        trainer: A `trl.GRPOTrainer`.
        reward: Reward function of the trainer.
        eager: Eager judge that the scorer of the reward function uses.
    """
    warn_unless_checked()
    generate_and_score = trainer._generate_and_score_completions

    def judged_while_generating(inputs: Any) -> Any:
        with _submitted(trainer, inputs, reward, eager):
            return generate_and_score(inputs)

    trainer._generate_and_score_completions = judged_while_generating


@contextlib.contextmanager
def _submitted(
    trainer: Any, inputs: Sequence[Mapping[str, Any]], reward: FlawedAwareReward, eager: EagerJudge
) -> Iterator[None]:
    """Within the block, submit the rollouts that the model writes for the rows of `inputs`, in their order."""
    columns = {key: [row[key] for row in inputs] for key in inputs[0]}
    tokenizer, loop = trainer.processing_class, trainer.async_loop

    def submit(row: int, prompt_ids: list[int], tokens: list[int]) -> None:
        completion = _decoded(tokenizer, inputs[row]["prompt"], prompt_ids, tokens)
        rollout = reward.rollout(row, inputs[row]["prompt"], completion, tokens, columns)
        loop.call_soon_threadsafe(eager.begin, rollout)

    if getattr(
        trainer, "tools", None
    ):  # the model may write further turns, in calls of `generate` for some of the rows
        yield
        return
    with _watched(trainer.accelerator.unwrap_model(trainer.model_wrapped), submit):
        try:
            yield
        except BaseException:
            with contextlib.suppress(TimeoutError):
                asyncio.run_coroutine_threadsafe(eager.cancel(), loop).result(CANCEL_TIMEOUT)
            raise


def _decoded(tokenizer: Any, prompt: Any, prompt_ids: list[int], tokens: list[int]) -> Any:
    """Return a completion as TRL decodes it, so that the judge is asked about the same text only once.

    TRL leaves out the thinking if the tokenizer says how its responses are parsed.
    """
    can_parse = any(getattr(tokenizer, name, None) for name in ("response_template", "response_schema"))
    if isinstance(prompt, str) or not can_parse:
        return tokenizer.decode(tokens, skip_special_tokens=True)
    num_pads = next((i for i, token in enumerate(prompt_ids) if token != tokenizer.pad_token_id), 0)
    has_prefix = "prefix" in inspect.signature(parse_response).parameters  # TRL before 1.9 has none
    return [parse_response(tokenizer, tokens, **({"prefix": prompt_ids[num_pads:]} if has_prefix else {}))]


@contextlib.contextmanager
def _watched(model: Any, on_end: OnEnd) -> Iterator[None]:
    """Within the block, `model.generate` calls `on_end` as `SequenceEnds` does; then it is again what it was."""
    generate, replaced = model.generate, vars(model).get("generate")  # others may have replaced the method, too

    def watched(*args: Any, stopping_criteria: Any = None, **kwargs: Any) -> Any:
        ends = kwargs.get("generation_config", model.generation_config).eos_token_id
        end_tokens = [ends] if isinstance(ends, int) else ends
        criteria = StoppingCriteriaList([*(stopping_criteria or ()), SequenceEnds(end_tokens, on_end)])
        return generate(*args, stopping_criteria=criteria, **kwargs)

    model.generate = watched
    try:
        yield
    finally:
        del model.generate
        if replaced is not None:
            model.generate = replaced
