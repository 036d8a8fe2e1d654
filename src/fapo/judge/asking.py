"""A judge that asks a model once about each distinct solution, whatever the model is and however it answers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from typing import Any

from fapo.data.final_answers import num_words
from fapo.data.trajectory import judged_steps
from fapo.inference.usage import UsageMeter
from fapo.judge.verdicts import BLANK, FLAGGED_UNREAD, vote
from fapo.types import ChatModel, Completion, Given, Message, Problem, Rollout, StepRule, Verdict


class _Split(Sequence[tuple[Problem, list[str | Given]]]):
    """Problems and steps of rollouts; a response is split when its item is read."""

    def __init__(self, rollouts: Sequence[Rollout], rule: StepRule) -> None:
        self._rollouts, self._rule = rollouts, rule

    def __len__(self) -> int:
        return len(self._rollouts)

    def __getitem__(self, index: Any) -> Any:
        rollout = self._rollouts[index]
        return rollout.problem, judged_steps(rollout, self._rule)


class _Prompts(Sequence[list[Message]]):
    """Conversations about solutions, each of them `votes` times in a row.

    A conversation is built when its item is read, so waiting ones take no memory; the last one is kept for its votes.
    """

    def __init__(
        self,
        build: Callable[[Problem, Sequence[str | Given]], list[Message]],
        solutions: Sequence[tuple[Problem, Sequence[str | Given]]],
        indices: Sequence[int],
        votes: int,
    ) -> None:
        """Use the solutions at `indices` only."""

        @lru_cache(maxsize=1)
        def built(index: int) -> list[Message]:
            return build(*solutions[index])

        self._indices, self._votes, self._built = indices, votes, built

    def __len__(self) -> int:
        return len(self._indices) * self._votes

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._built(self._indices[range(len(self))[index] // self._votes])


class AskingJudge(ABC):
    """A `Judge` that asks a model about solutions; a subclass says how it asks, and how it reads an answer."""

    complete: ChatModel
    """Model that is asked."""
    usage: UsageMeter
    """Tokens of all answers so far."""
    votes: int = 1
    """Number of answers for each solution."""
    min_words: int = 0
    """Minimum number of words outside boxed answers; a shorter solution is flagged unread. 0: no minimum."""

    @property
    @abstractmethod
    def steps(self) -> StepRule:
        """Rule by which responses are split into steps."""

    @abstractmethod
    def build(self, problem: Problem, steps: Sequence[str | Given]) -> list[Message]:
        """Return the conversation that asks the model about the steps of a solution."""

    @abstractmethod
    def parse(self, answer: Completion, given: Sequence[bool]) -> Verdict:
        """Return the verdict in one answer; `given` says of each step whether the policy did not write it."""

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Verdict]:
        """Return one verdict for each rollout, in order; responses are split into steps."""
        return await self.judge_steps(_Split(rollouts, self.steps))

    async def judge_steps(self, solutions: Sequence[tuple[Problem, Sequence[str | Given]]]) -> list[Verdict]:
        """Return one verdict for each solution with given steps, in order.

        The model is asked once about equal solutions of equal problems: the response cache would take a repeated
        conversation for a further vote. It is not asked about blank solutions, which are unparsable.

        Args:
            solutions: Problem and steps of each solution; `error_step` of the verdict is an index into these steps. A
                critique that names a `Given` step is unparsable.

        Returns:
            Verdicts; those with status failed have the error of the model as their reason.
        """
        keys: list[bytes] = []
        verdicts: dict[bytes, Verdict] = {}
        asked: dict[bytes, tuple[int, tuple[bool, ...]]] = {}  # index, and for each step whether it is given
        for index, (problem, steps) in enumerate(solutions):
            content = problem.text, problem.reference, tuple(step.strip() for step in steps)  # as in the prompt
            key = sha256(repr(content).encode()).digest()  # a hash, so that waiting steps take no memory
            keys.append(key)
            if key in asked or key in verdicts:
                continue
            if verdict := self._unread(steps):
                verdicts[key] = verdict
            else:
                asked[key] = index, tuple(isinstance(step, Given) for step in steps)
        prompts = _Prompts(self.build, solutions, [index for index, _ in asked.values()], self.votes)
        answers = await self.complete(prompts) if asked else []
        assert len(answers) == len(prompts), "a chat model returns one completion for each conversation"
        self.usage.add(answers)
        for i, (key, (_, given)) in enumerate(asked.items()):
            votes = answers[i * self.votes : (i + 1) * self.votes]
            parsed = [replace(self.parse(answer, given), seconds=round(answer.seconds, 4)) for answer in votes]
            verdicts[key] = vote(parsed)
        return [verdicts[key] for key in keys]

    def _unread(self, steps: Sequence[str | Given]) -> Verdict | None:
        """Return the verdict on a solution that needs no critique; None for all other solutions."""
        if not (text := "\n\n".join(step for step in steps if isinstance(step, str))).strip():
            return Verdict("unparsable", reason=BLANK)
        if self.min_words and (num := num_words(text)) < self.min_words:
            reason = f"{FLAGGED_UNREAD}: {num} words outside the box, min_words is {self.min_words}"
            return Verdict("ok", flawed=True, reason=reason)
        return None
