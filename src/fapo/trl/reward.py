"""Flawed-aware reward function for any `trl.GRPOTrainer`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Self, get_args

from fapo.config.ranges import check_ranges
from fapo.config.schema import FapoReward
from fapo.data.columns import only_item
from fapo.data.problems import answer_of_worked_solution, as_final_answer
from fapo.data.trajectory import make_rollout, message_text, reaches_limit
from fapo.errors import ConfigError, DataError
from fapo.inference.client import ChatClient
from fapo.judge.cascade import judges_in
from fapo.judge.genrm import GenRM
from fapo.judge.template import load_template
from fapo.judge.verdicts import verdict_row
from fapo.rewards.checkers import CheckerFunction, make_checker
from fapo.rewards.critique_scorer import Scorer
from fapo.rewards.scorer import PolicyScorer
from fapo.trl.version import require_supported
from fapo.types import Judge, OnUnscored, Problem, Rollout, ScoredRollout, StepRule

REFERENCE_COLUMNS = ("reference", "answer", "solution")
"""Columns of a data set that may hold the reference answers; the first one that it has is used."""
Record = Callable[[Sequence[ScoredRollout], Mapping[str, list[Any]]], None]
"""Function that is called with each batch of scored rollouts, and the columns of the data set."""
LogExtra = Callable[[str, list[Any]], None]
"""TRL's function that adds a column to the completions table; AsyncGRPOTrainer has none."""
LogMetric = Callable[[str, float], None]
"""TRL's function that logs a number; AsyncGRPOTrainer has none."""


class FlawedAwareReward(functools.partial[Awaitable[list[float | None]]]):
    """Async reward function for `trl.GRPOTrainer(reward_funcs=...)`; its reward is None without a verdict.

    The data set needs the column `prompt`, and reference answers in `reference`, `answer` or `solution`. If the
    reference is a worked solution, its final answer counts. The judge reads the question in the column `problem`, or
    else in the last user message of the prompt. TRL leaves rewards of None out of the group's mean and standard
    deviation, and gives these rollouts the advantage 0. Verdicts and critiques become columns of TRL's completions
    table.

    It is a partial of an `async def`, because TRL up to 1.13 awaits only what `inspect.iscoroutinefunction` accepts.
    It can be pickled, since TRL's AsyncGRPOTrainer sends it to another process.
    """

    scorer: Scorer
    """Scorer of the rollouts."""
    record: Record | None
    """Function that is called with each batch of scored rollouts, and the columns of the data set."""
    thinking: bool
    """Whether the prompts end with the opening tag of a thinking block."""
    __name__: str
    """Name in TRL's logs: "fapo_reward" or that of another kind of reward."""

    def __new__(cls, scorer: Scorer, record: Record | None = None, thinking: bool = False) -> Self:
        """Make a reward function from a scorer; most users want `flawed_aware_reward`.

        Args:
            scorer: Scorer of the rollouts.
            record: Function that is called with each batch of scored rollouts.
            thinking: Whether the prompts end with the opening tag of a thinking block.

        Returns:
            The reward function.

        Raises:
            EngineError: If the installed TRL is too old or too new.
        """
        require_supported()

        async def reward(
            prompts: list[Any],
            completions: list[Any],
            completion_ids: list[list[int]],
            log_extra: LogExtra | None = None,
            log_metric: LogMetric | None = None,
            **columns: Any,
        ) -> list[float | None]:
            scored = await self.score(prompts, completions, completion_ids, columns)
            if log_extra:
                log_verdicts(scored, log_extra)
            if log_metric:
                log_rates(scored, log_metric)
            if self.record:
                self.record(scored, columns)
            return [s.reward.value for s in scored]

        reward.__name__ = f"{scorer.config.kind}_reward"  # TRL looks for the name of a partial here
        self = super().__new__(cls, reward)
        self.scorer, self.record, self.thinking, self.__name__ = scorer, record, thinking, reward.__name__
        return self

    def __reduce__(self) -> Any:
        return type(self), (self.scorer, self.record, self.thinking)

    async def score(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[list[int]],
        columns: Mapping[str, list[Any]],
    ) -> list[ScoredRollout]:
        """Return the scored rollout of each completion.

        Args:
            prompts: Prompts, as text or as conversations [num_rollouts].
            completions: Completions, as text or as conversations [num_rollouts].
            completion_ids: Token ids of the completions [num_rollouts].
            columns: Further columns of the data set, each [num_rollouts].

        Returns:
            Scored rollouts [num_rollouts]; the reward of one without a verdict is None, if `on_unscored` is "mask".

        Raises:
            DataError: If the data set has no reference answers.
            JudgeDownError: If the judge fails for too many rollouts.
            UnscoredError: If there is no verdict on a rollout, and `on_unscored` is "raise".
        """
        rows = zip(prompts, completions, completion_ids, strict=True)
        return await self.scorer([self.rollout(i, *row, columns) for i, row in enumerate(rows)])

    def rollout(self, i: int, prompt: Any, completion: Any, tokens: list[int], columns: Mapping[str, Any]) -> Rollout:
        """Return one row of a batch as a rollout.

        Args:
            i: Index of the row.
            prompt: Its prompt, as text or as a conversation.
            completion: Its completion, as text or as a conversation.
            tokens: Token ids of the completion.
            columns: Columns of the data set, each [num_rollouts].

        Returns:
            The rollout. It is truncated if it is as long as the limit of the scorer.

        Raises:
            DataError: If the data set has no reference answers, or the row has none; or the prompt, the problem or the
                completion is neither a text nor a conversation.
        """
        given = columns["problem"][i] if "problem" in columns else None
        text = problem_text(prompt if given is None else given)
        problem = Problem(
            id=str(columns["id"][i]) if "id" in columns else str(i),
            text=text,
            reference=_reference(i, text, columns, needed=isinstance(self.scorer, PolicyScorer)),
            source=str(columns["source"][i]) if "source" in columns else "",
        )
        truncated = reaches_limit(len(tokens), self.scorer.max_tokens)
        return make_rollout(problem, completion, len(tokens), truncated=truncated, thinking=self.thinking)


def _reference(i: int, problem: str, columns: Mapping[str, Any], *, needed: bool) -> str:
    """Return the final answer in the first of REFERENCE_COLUMNS that has a value in a row.

    Args:
        i: Index of the row.
        problem: Text of its problem, for the message.
        columns: Columns of the data set, each [num_rollouts].
        needed: Whether the answer may not be empty. A critique is scored by its label.

    Returns:
        The answer.

    Raises:
        DataError: If the data set has no such column, or the row has no answer in it.
    """
    names = [name for name in REFERENCE_COLUMNS if name in columns]
    if not names:
        raise DataError(
            "the data set has no column with the right answers: name it one of " + ", ".join(REFERENCE_COLUMNS)
        )
    name = next((name for name in names if columns[name][i] is not None), names[0])
    value = columns[name][i]
    if not needed:
        return answer_of_worked_solution(str(only_item(value)))
    return as_final_answer(f"data set, row with the problem {problem[:60]!r}", name, value)


def log_verdicts(scored: Sequence[ScoredRollout], log_extra: LogExtra) -> None:
    """Add the verdicts and critiques of a batch to TRL's completions table.

    Args:
        scored: Scored rollouts [num_rollouts].
        log_extra: TRL's function that adds a column.
    """
    verdicts = [verdict_row(s.verdict) for s in scored]
    for name in ("status", "flawed", "error_step", "critique"):
        log_extra(name, [row[name] for row in verdicts])
    log_extra("reason", [s.check_error or row["reason"] for s, row in zip(scored, verdicts, strict=True)])
    log_extra("reference", [s.rollout.problem.reference for s in scored])  # `fapo judge` reads it in the table


def log_rates(scored: Sequence[ScoredRollout], log_metric: LogMetric) -> None:
    """Add accuracy, rate of unscored rollouts and rate of flawed ones among the correct to TRL's metrics.

    TRL logs the mean of all values, of all processes. A value for each rollout makes it the rate in the whole batch.

    Args:
        scored: Scored rollouts [num_rollouts].
        log_metric: TRL's function that logs a number.
    """
    for s in scored:
        log_metric("fapo/accuracy", float(s.correct))
        log_metric("fapo/unscored_rate", float(s.reward.value is None))
        if s.correct and s.flawed is not None:
            log_metric("fapo/fp_ratio", float(s.flawed))


def _is_async(function: Callable[..., Any]) -> bool:
    """Return whether a function, a partial of one, or the `__call__` of an object is an `async def`."""
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def problem_text(messages: Any) -> str:
    """Return the last user message of a conversation, or the last one without a user; a text is returned as it is.

    Raises DataError for anything else.
    """
    if isinstance(messages, str):
        return messages
    turns: Sequence[Any] = messages if isinstance(messages, Sequence) else ()
    if not turns or not all(isinstance(turn, Mapping) for turn in turns):
        raise DataError(f"data set: problem or prompt must be a text or a conversation, is {str(messages)[:40]!r}")
    asked = [turn for turn in turns if turn.get("role") == "user"] or turns
    return message_text(asked[-1].get("content"))


def flawed_aware_reward(
    judge: Judge | str | Sequence[str],
    *,
    penalty: float = 1.0,
    checker: str | CheckerFunction = "math",
    on_unscored: OnUnscored = "mask",
    overlong_buffer: int = 0,
    max_completion_length: int = 0,
    thinking: bool = False,
    max_failure_rate: float = 0.5,
    model: str = "",
    template: str = "locate",
    steps: StepRule | None = None,
    min_words: int = 0,
    temperature: float | None = None,
    top_p: float | None = None,
    max_tokens: int | None = None,
    concurrency: int = 64,
    timeout: float = 600.0,
    deadline: float | None = None,
    retries: int = 4,
    backoff: float = 0.5,
    cooldown: float = 1.0,
    api_key: str | None = None,
    extra_body: Mapping[str, Any] | None = None,
) -> FlawedAwareReward:
    """Return the FAPO reward: +1 for a correct rollout, 1 - `penalty` for a correct but flawed one, -1 for a wrong one.

    The arguments from `model` on describe a judge model behind servers; if `judge` is a `Judge`, only `steps` is used.

    Args:
        judge: Address of an OpenAI-compatible server of a GenRM, or several addresses, or any `Judge`.
        penalty: lambda of the paper, subtracted for a flawed rollout; 0 is plain RLVR.
        checker: Answer check: math, choice, exact, or a function of response, reference and problem, or its name as
            "package.module:function". It returns a bool and may be async. Where it fails, the rollout is unscored.
        on_unscored: Treatment of correct rollouts without a verdict. "mask" leaves them out of their group,
            "correctness_only" gives them +1, "raise" stops the trainer.
        overlong_buffer: Length in tokens over which the soft length penalty falls from 0 to -1; 0 turns it off.
        max_completion_length: The trainer's limit in tokens, at which that penalty is -1.
        thinking: Whether the chat template ends the prompt with `<think>`. A completion of `max_completion_length`
            tokens without `</think>` then has no answer.
        max_failure_rate: Largest rate of failures among the last 100 judgements that does not stop the trainer; also
            among the last 100 calls of a `checker`.
        model: Name under which the servers know the GenRM.
        template: Prompt of the GenRM: locate, locate_small, yes_no, compact, or the path of a template file.
        steps: Steps of a rollout: "paragraphs", or "lines" where it has no empty line; None: the template's own rule.
            For a `Judge` without a rule of its own, the rule by which it splits rollouts; None: "paragraphs".
        min_words: Minimum number of words outside the boxed answer. A shorter correct rollout is flagged without the
            judge; 0 turns it off, as in the paper.
        temperature: Sampling temperature of the critique; None leaves it to the server.
        top_p: Nucleus sampling of the critique; None leaves it to the server.
        max_tokens: Length limit of the critique in tokens; None leaves it to the server.
        concurrency: Number of requests at a time, over all servers.
        timeout: Seconds for one try of a request.
        deadline: Seconds for all tries of a request; None for no limit.
        retries: Number of tries after the first one.
        backoff: Seconds before the second try; doubled for each further one.
        cooldown: Seconds for which a server that failed gets no requests; doubled for each further failure.
        api_key: API key for the servers; by default it is read from the environment, see `ChatClient`.
        extra_body: Further fields of each request.

    Returns:
        A reward function for `trl.GRPOTrainer(reward_funcs=...)`.

    Raises:
        ConfigError: If an argument cannot be used; the message names it.
        EngineError: If the installed TRL is too old or too new.
    """
    if not callable(judge):
        client = ChatClient(
            [judge] if isinstance(judge, str) else list(judge),
            model,
            api_key=api_key,
            concurrency=concurrency,
            timeout=timeout,
            deadline=deadline,
            retries=retries,
            backoff=backoff,
            cooldown=cooldown,
            temperature=temperature,
            top_p=top_p,
            max_tokens=max_tokens,
            extra_body=extra_body or {},
        )
        judge = GenRM(load_template(template, steps), client, min_words=min_words)
    elif not _is_async(judge):
        name = getattr(judge, "__name__", type(judge).__name__)
        raise ConfigError(f"judge {name}: must be an `async def` function, or an object with an `async def __call__`")
    if not 0 <= max_failure_rate <= 1:
        raise ConfigError(f"max_failure_rate is {max_failure_rate}, must be a rate from 0 to 1")
    if on_unscored not in get_args(OnUnscored):
        raise ConfigError(f"on_unscored is {on_unscored!r}; choose one of {', '.join(get_args(OnUnscored))}")
    if steps not in (None, *get_args(StepRule)):
        raise ConfigError(f"steps is {steps!r}; choose one of {', '.join(get_args(StepRule))}")
    if overlong_buffer > max_completion_length:
        raise ConfigError(
            f"overlong_buffer is {overlong_buffer}, but max_completion_length is {max_completion_length}; pass the "
            "max_completion_length of the trainer's GRPOConfig, and a buffer that is not longer"
        )
    if thinking and not max_completion_length:
        raise ConfigError("thinking needs max_completion_length: pass the one of the trainer's GRPOConfig")
    config = FapoReward(penalty=penalty, on_unscored=on_unscored, overlong_buffer=overlong_buffer)
    check_ranges(config, "flawed_aware_reward")
    check = make_checker(checker)
    rule = next((j.steps for j in judges_in(judge) if hasattr(j, "steps")), steps or "paragraphs")
    scorer = PolicyScorer(
        config, judge, max_completion_length, steps=rule, max_failure_rate=max_failure_rate, check=check
    )
    return FlawedAwareReward(scorer, thinking=thinking)
