"""The GenRM: a judge that asks a chat model for critiques of a solution, and takes the majority of their verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from fapo.errors import ConfigError
from fapo.inference.usage import UsageMeter
from fapo.judge.asking import AskingJudge
from fapo.judge.flag_probability import flag_probability
from fapo.judge.template import Template, build_prompt
from fapo.judge.verdicts import CUT_OFF, GIVEN_STEP
from fapo.types import ChatModel, Completion, Given, Message, Problem, StepRule, Verdict


@dataclass(frozen=True)
class GenRM(AskingJudge):
    """A `Judge` that asks a chat model for critiques and returns the majority of their verdicts."""

    template: Template
    """Prompt that the model was trained for."""
    complete: ChatModel
    """Chat model: a server (`ChatClient`) or a model in this process."""
    votes: int = 1
    """Number of critiques of each solution; several are useful only at a temperature above 0."""
    min_words: int = 0
    """Minimum number of words outside boxed answers; a shorter solution is flagged unread. 0: no minimum."""
    usage: UsageMeter = field(default_factory=UsageMeter, repr=False, compare=False)
    """Tokens of all critiques, also of votes that lost."""

    def __post_init__(self) -> None:
        if self.votes < 1:
            raise ConfigError(f"votes is {self.votes}, must be at least 1")

    @property
    def steps(self) -> StepRule:
        """Rule by which responses are split into steps, which is the template's."""
        return self.template.steps

    def build(self, problem: Problem, steps: Sequence[str | Given]) -> list[Message]:
        """Return the conversation that asks for a critique."""
        return build_prompt(self.template, problem.text, problem.reference, steps)

    def parse(self, answer: Completion, given: Sequence[bool]) -> Verdict:
        """Return the verdict in one completion; `given` says of each step whether the policy did not write it."""
        return verdict_in(answer, self.template, given)


def verdict_in(answer: Completion, template: Template, given: Sequence[bool]) -> Verdict:
    """Return the verdict in one completion.

    Args:
        answer: Completion of the model.
        template: Prompt that it answers.
        given: Whether each step is a `Given` one, which the policy did not write.

    Returns:
        The verdict; failed where the request failed, unparsable where the critique is cut off or names a given step. It
        has a probability of a flaw if the completion has log probabilities of the verdict's tokens.
    """
    if answer.error:
        verdict = Verdict("failed", critique=answer.text, reason=answer.error)
    elif answer.truncated:
        verdict = Verdict("unparsable", critique=answer.text, reason=CUT_OFF)
    else:
        verdict = template.parse(answer.text, len(given))
        if verdict.error_step is not None and given[verdict.error_step]:
            verdict = Verdict("unparsable", critique=answer.text, reason=GIVEN_STEP)
        if answer.token_choices and verdict.status == "ok":
            probability = flag_probability(answer.text, answer.token_choices, template, bool(verdict.flawed))
            verdict = replace(verdict, flag_probability=probability)
    return replace(verdict, num_tokens=answer.num_tokens)
