"""Flawed-aware rewards for a trl.GRPOTrainer of one's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fapo.config.schema import FapoReward
from fapo.data.problems import answer_of_worked_solution
from fapo.errors import DataError
from fapo.inference.client import ChatClient
from fapo.judge.genrm import GenRM
from fapo.judge.template import load_template
from fapo.judge.verdicts import verdict_row
from fapo.rewards.critique_scorer import Scorer
from fapo.rewards.scorer import PolicyScorer
from fapo.types import Judge, OnUnscored, Problem, Rollout, ScoredRollout

_REFERENCES = ("reference", "answer", "solution")
Record = Callable[[Sequence[ScoredRollout], Mapping[str, list[Any]]], None]
"""Is given every batch of scored rollouts, with the data set's columns."""


class FlawedAwareReward:
    """An async reward function for `trl.GRPOTrainer(reward_funcs=...)`; None for rollouts without a verdict.

    The data set needs the column `prompt` and the right answers in `reference`, `answer` or `solution` (of a worked
    solution the final answer counts); the judge reads the question in the column `problem` or else the last
    user message. TRL leaves None out of the group's mean and std and gives it advantage 0. Verdicts and critiques
    become columns of TRL's completions table.
    """

    def __init__(self, scorer: Scorer, record: Record | None = None) -> None:
        """For a scorer of one's own; most users want `flawed_aware_reward`."""
        self.scorer = scorer
        self.record = record
        self.__name__ = f"{scorer.config.kind}_reward"

    async def __call__(
        self,
        prompts: list[Any],
        completions: list[Any],
        completion_ids: list[list[int]],
        log_extra: Callable[[str, list[Any]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """One reward for each completion, as TRL calls it."""
        rows = zip(prompts, completions, completion_ids, strict=True)
        scored = await self.scorer([self.rollout(i, *row, columns) for i, row in enumerate(rows)])
        if log_extra:
            verdicts = [verdict_row(s.verdict) for s in scored]
            for name in ("status", "flawed", "error_step", "critique", "reason"):
                log_extra(name, [row[name] for row in verdicts])
            log_extra("reference", [s.rollout.problem.reference for s in scored])  # for `fapo judge` on the table
        if log_metric:
            correct = [s for s in scored if s.correct]
            judged = [s.flawed for s in correct if s.flawed is not None]
            log_metric("fapo/accuracy", len(correct) / len(scored))
            log_metric("fapo/unscored_rate", sum(s.reward.value is None for s in scored) / len(scored))
            if judged:
                log_metric("fapo/fp_ratio", sum(judged) / len(judged))
        if self.record:
            self.record(scored, columns)
        return [s.reward.value for s in scored]

    def rollout(self, i: int, prompt: Any, completion: Any, tokens: list[int], columns: Mapping[str, Any]) -> Rollout:
        """Row i of a batch as what is scored."""
        name = next((c for c in _REFERENCES if c in columns), None)
        if name is None:
            raise DataError(
                f"the data set has no column with the right answers: name it one of {', '.join(_REFERENCES)}"
            )
        problem = Problem(
            id=str(columns["id"][i]) if "id" in columns else str(i),
            text=columns["problem"][i] if "problem" in columns else _text(prompt),
            reference=answer_of_worked_solution(str(columns[name][i])),
            source=str(columns["source"][i]) if "source" in columns else "",
        )
        return Rollout.from_text(problem, _text(completion), len(tokens), self.scorer.max_tokens)


def _text(messages: Any) -> str:
    """The last message of a conversation, or the plain text."""
    return messages if isinstance(messages, str) else messages[-1]["content"]


def flawed_aware_reward(
    judge: Judge | str | Sequence[str],
    *,
    model: str = "",
    penalty: float = 1.0,
    template: str = "locate",
    on_unscored: OnUnscored = "mask",
    overlong_buffer: int = 0,
    max_completion_length: int = 0,
    max_failure_rate: float = 0.5,
    min_words: int = 0,
    **client: Any,
) -> FlawedAwareReward:
    """The FAPO reward: +1 right, 1 - penalty right but flawed, -1 wrong (lambda = `penalty`).

    `judge` is the address (or addresses) of OpenAI-compatible servers with the GenRM `model`, or any `Judge`. `client`
    goes to `ChatClient` (temperature, top_p and max_tokens of the critique, concurrency, timeout, ...). Overlong
    shaping needs `overlong_buffer` and the trainer's `max_completion_length`. JudgeDownError stops the trainer if more
    than `max_failure_rate` of the last 100 judgements failed, or of a larger batch (at least 8). A right answer with
    fewer than `min_words` words outside its box is flagged without asking (0: off, as in the paper).
    """
    if not callable(judge):
        urls = [judge] if isinstance(judge, str) else list(judge)
        judge = GenRM(load_template(template), ChatClient(urls, model, **client), min_words=min_words)
    config = FapoReward(penalty=penalty, on_unscored=on_unscored, overlong_buffer=overlong_buffer)
    scorer = PolicyScorer(config, judge, max_completion_length, max_failure_rate=max_failure_rate)
    return FlawedAwareReward(scorer)
