"""The GenRM: solution steps -> prompt -> critique -> Verdict; voting; parsing that trusts nothing the judge wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from typing import Any

from fapo.data.final_answers import num_words
from fapo.data.steps import split_steps
from fapo.errors import ConfigError
from fapo.judge.template import Template, build_prompt
from fapo.judge.verdicts import FLAGGED_UNREAD, majority
from fapo.types import ChatModel, Completion, Message, Problem, Rollout, Verdict


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
            reason = f"{FLAGGED_UNREAD}: {num} words outside the box, min_words is {self.min_words}"
            return Verdict("ok", flawed=True, reason=reason)
        return None

    def _read(self, answer: Completion, num_steps: int) -> Verdict:
        if answer.error:
            return Verdict("failed", critique=answer.text, reason=answer.error, num_tokens=answer.num_tokens)
        return replace(self.template.parse(answer.text, num_steps), num_tokens=answer.num_tokens)
