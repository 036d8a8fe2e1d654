"""The GenRM: solution steps -> prompt -> critique -> Verdict; voting; parsing that trusts nothing the judge wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from fapo.data.final_answers import num_words
from fapo.data.steps import split_steps
from fapo.errors import ConfigError, FapoError, JudgeDownError
from fapo.judge.template import Template, build_prompt
from fapo.judge.verdicts import majority, parse_yes_no
from fapo.types import ChatModel, Completion, Message, Problem, Rollout, Verdict

WINDOW = 100
"""Number of latest results whose failure rate is checked."""
MIN_RESULTS = 8
"""Minimum number of results before the failure rate is checked."""
ALL_FAILED = 0.99
"""Largest failure rate of a command that continues as long as anything is answered: 99 of the last 100."""


UNREAD = "flagged unread"
"""First words of the reason of a solution that was flagged for its length, without asking the judge."""


def verdict_row(verdict: Verdict | None) -> dict[str, Any]:
    """Return the columns that a verdict has in every file that fapo writes; None means that no judge was asked."""
    if verdict is None:
        return {
            "status": "skipped",
            "flawed": None,
            "error_step": None,
            "critique": "",
            "critique_tokens": 0,
            "reason": "",
        }
    return {
        "status": verdict.status,
        "flawed": verdict.flawed,
        "error_step": verdict.error_step,
        "critique": verdict.critique,
        "critique_tokens": verdict.num_tokens,
        "reason": verdict.reason,
    }


def verdict_from_row(row: Mapping[str, Any]) -> Verdict | None:
    """Return the verdict in a row that fapo wrote, None where no judge was asked.

    Rows of older versions are understood: without `flawed` a step means flawed, and see `named_step`.
    """
    status, flawed = row["status"], row.get("flawed")
    if status == "skipped":
        return None
    texts = row.get("critique") or "", row.get("reason") or "", row.get("critique_tokens") or 0
    if status != "ok":
        return Verdict(status, None, None, *texts)
    return Verdict("ok", row["error_step"] is not None if flawed is None else flawed, named_step(row), *texts)


def named_step(row: Mapping[str, Any]) -> Any:
    """Return the step that the judge of a row named, None where it named none.

    Older versions of fapo wrote step 0 for the "yes" of a yes/no judge and for solutions that were flagged unread.
    The first shows in the critique, the second in the reason, or in rollouts.jsonl, which had none, in the empty
    critique.
    """
    step = row.get("error_step")
    if step != 0 or isinstance(step, bool):
        return step
    critique, reason = str(row.get("critique") or ""), str(row.get("reason") or "")
    old_rollout = "reason" not in row and "critique_tokens" in row
    unread = reason.startswith(UNREAD) or (old_rollout and not critique)
    return None if unread or parse_yes_no(critique).flawed else step


class CircuitBreaker:
    """Stops a run whose judge, or another model, fails for too many requests.

    The rule is the same everywhere: the run stops when more than `max_failure_rate` of the latest results are failures.
    The latest results are the last WINDOW ones, or all that were recorded at once where these are more. Fewer than
    MIN_RESULTS results are not enough to stop.
    """

    def __init__(
        self,
        max_failure_rate: float = ALL_FAILED,
        *,
        name: str = "the judge",
        remedy: str = "",
        num_expected: int = MIN_RESULTS,
        num_answered: int = 0,
        error: type[FapoError] = JudgeDownError,
    ) -> None:
        """Start without failures.

        Args:
            max_failure_rate: Largest fraction of failures that does not stop the run; 1 never stops it.
            name: Name of the model for the message.
            remedy: Sentence for the message that says what to do.
            num_expected: Number of results that will come, if it is known; fewer than MIN_RESULTS are then enough.
            num_answered: Number of answers from before; they count as results that are no failures.
            error: Exception that stops the run.
        """
        self.max_failure_rate, self.error = max_failure_rate, error
        self._name, self._remedy = name, remedy
        self._enough = min(MIN_RESULTS, num_expected)
        self._latest = [""] * min(num_answered, WINDOW)

    def record(self, errors: Sequence[str]) -> None:
        """Add results and check the latest ones.

        Args:
            errors: Why each request failed; an empty text for one that was answered.

        Raises:
            JudgeDownError: If the failure rate is too high; or the exception that was given as `error`.
        """
        self._latest = [*self._latest, *errors][-max(WINDOW, len(errors)) :]
        failures, num = Counter(filter(None, self._latest)), len(self._latest)
        if num < self._enough or failures.total() <= self.max_failure_rate * num:
            return
        why, times = failures.most_common(1)[0]
        share = f"Restore it and resume, or allow a larger max_failure_rate (now {self.max_failure_rate:g})"
        raise self.error(
            f"{self._name} is down: {failures.total()} of the last {num} requests failed, {times} of them with: {why}. "
            f"{self._remedy or share}"
        )

    def record_verdicts(self, verdicts: Iterable[Verdict]) -> None:
        """Add verdicts as results and check the latest ones, like `record`; those with status failed are failures."""
        self.record([(v.reason or "no reason given") if v.status == "failed" else "" for v in verdicts])


def start_again(kept: str | Path | None) -> str:
    """Return the remedy for a command that goes on where it was: its answers are kept in a file or folder, if any."""
    return f"Restore it and give the same command again{f'; answers so far are in {kept}' if kept else ''}"


class _Split(Sequence[tuple[Problem, list[str]]]):
    """Rollouts as problems and steps, split when looked at."""

    def __init__(self, rollouts: Sequence[Rollout]) -> None:
        self._rollouts = rollouts

    def __len__(self) -> int:
        return len(self._rollouts)

    def __getitem__(self, index: Any) -> Any:
        rollout = self._rollouts[index]
        return rollout.problem, split_steps(rollout.response)


class _Prompts(Sequence[list[Message]]):
    """The conversations of a batch, each `votes` times, built when looked at: those that wait take no memory.

    Votes on one solution, which follow each other, share what is built.
    """

    def __init__(
        self, template: Template, solutions: Sequence[tuple[Problem, Sequence[str]]], asked: Sequence[int], votes: int
    ) -> None:
        """`asked` are the indices of the solutions that are asked about."""

        @lru_cache(maxsize=1)
        def built(index: int) -> list[Message]:
            problem, steps = solutions[index]
            return build_prompt(template, problem.text, problem.reference, steps)

        self._asked, self._votes, self._built = asked, votes, built

    def __len__(self) -> int:
        return len(self._asked) * self._votes

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._built(self._asked[range(len(self))[index] // self._votes])


@dataclass(frozen=True)
class GenRM:
    """The `Judge` that writes a critique: prompt, k answers, parse, majority."""

    template: Template
    """The prompt it is used to."""
    complete: ChatModel
    """The model: a server (`ChatClient`) or one in this process."""
    votes: int = 1
    """Answers asked for each solution; more than one makes sense only at a temperature above 0."""
    min_words: int = 0
    """Minimum number of words outside the boxes; a shorter solution is flagged without asking. 0: always ask."""

    def __post_init__(self) -> None:
        if self.votes < 1:
            raise ConfigError(f"votes is {self.votes}, must be at least 1")

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Verdict]:
        """Judge responses, each split into its steps."""
        return await self.judge_steps(_Split(rollouts))

    async def judge_steps(self, solutions: Sequence[tuple[Problem, Sequence[str]]]) -> list[Verdict]:
        """Judge solutions whose steps are given, as those of ProcessBench; indices refer to these steps.

        Equal solutions of equal problems are asked about once. A blank solution is unparsable without asking: there
        is nothing to find an error in, and asking again would not help.
        """
        keys: list[bytes] = []
        verdicts: dict[bytes, Verdict] = {}
        asked: dict[bytes, tuple[int, int]] = {}  # index and number of steps
        for index, (problem, steps) in enumerate(solutions):
            question = problem.text, problem.reference, tuple(steps)
            key = sha256(repr(question).encode()).digest()  # steps that wait take no memory
            keys.append(key)
            if key in asked or key in verdicts:
                continue
            if verdict := self._unread(steps):
                verdicts[key] = verdict
            else:
                asked[key] = index, len(steps)
        prompts = _Prompts(self.template, solutions, [index for index, _ in asked.values()], self.votes)
        answers = await self.complete(prompts) if asked else []
        assert len(answers) == len(prompts), "one completion for each conversation"
        for i, (key, (_, num_steps)) in enumerate(asked.items()):
            own = answers[i * self.votes : (i + 1) * self.votes]
            verdicts[key] = majority([self._read(answer, num_steps) for answer in own])
        return [verdicts[key] for key in keys]

    def _unread(self, steps: Sequence[str]) -> Verdict | None:
        """The verdict on a solution that the judge is not asked about; None where it is asked."""
        if not (text := "\n\n".join(steps)).strip():
            return Verdict("unparsable", reason="blank solution: the judge was not asked")
        if self.min_words and (num := num_words(text)) < self.min_words:
            reason = f"{UNREAD}: {num} words outside the box, min_words is {self.min_words}"
            return Verdict("ok", flawed=True, reason=reason)
        return None

    def _read(self, answer: Completion, num_steps: int) -> Verdict:
        if answer.error:
            return Verdict("failed", critique=answer.text, reason=answer.error, num_tokens=answer.num_tokens)
        return replace(self.template.parse(answer.text, num_steps), num_tokens=answer.num_tokens)
