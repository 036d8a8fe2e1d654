"""Requests and responses of the reward service, one pair for each trainer."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fapo.data.chat_prompts import question_of_prompt, response_of_query, whole_response
from fapo.data.columns import plain_text
from fapo.data.problems import answer_of_worked_solution
from fapo.data.trajectory import make_rollout
from fapo.errors import DataError
from fapo.judge.verdicts import verdict_row
from fapo.types import Problem, Rollout, ScoredRollout

MAX_CHARS = 1_000_000
"""Maximum length of a text in characters."""
MAX_ROLLOUTS = 4096
"""Maximum number of rollouts of one request."""
MAX_TURNS = 256
"""Maximum number of messages of a conversation."""

Text = Annotated[str, Field(max_length=MAX_CHARS)]
Label = (
    Annotated[str, Field(min_length=1, max_length=MAX_CHARS)]
    | Annotated[int, Field(strict=True)]
    | Annotated[float, Field(strict=True, allow_inf_nan=False)]
)
"""A correct answer, or a worked solution that ends with one; neither true nor NaN is an answer."""
Turn = dict[Annotated[str, Field(max_length=100)], Any]
Prompt = Text | Annotated[list[Turn], Field(max_length=MAX_TURNS)]
"""A text, a conversation, or a conversation rendered as text; a response is one of the first two."""


class RolloutRow(BaseModel):
    """One rollout at /v1/rewards."""

    model_config = ConfigDict(extra="forbid")

    problem: Prompt = Field(description="Question: a text, a conversation, or a conversation rendered as text.")
    reference: Label = Field(description="Correct answer, or a worked solution that ends with it.")
    response: Prompt = Field(description="Solution that the policy wrote: a text, or a conversation with tools.")
    id: Annotated[str, Field(max_length=1000)] = Field("", description="Name of the rollout, returned with its reward.")
    num_tokens: Annotated[int, Field(ge=0)] | None = Field(
        None, description="Length of the response in tokens; a reward with an overlong penalty needs it."
    )

    def rollout(self) -> Rollout:
        """Return the rollout. Raise DataError if the problem holds no question, or the response no solution."""
        return read_rollout(self.problem, self.response, self.reference, self.num_tokens or 0, self.id)


class RewardRow(BaseModel):
    """Reward of one rollout at /v1/rewards."""

    id: str = Field(description="Name of the rollout.")
    reward: float | None = Field(description="Reward; null where there is none, for lack of a verdict or answer check.")
    correct: bool = Field(description="Whether the final answer was found correct.")
    status: Literal["ok", "unparsable", "failed", "skipped"] = Field(
        description="ok: there is a verdict; unparsable: the critique holds none; failed: the judge did not answer; "
        "skipped: the judge was not asked."
    )
    flawed: bool | None = Field(description="Whether the judge found an error; null without a verdict.")
    error_step: int | None = Field(description="Index of the first wrong step, from 0; null where none is named.")
    critique: str = Field(description="Text that the judge wrote.")
    reason: str = Field(description="Reason why there is no verdict, or no answer check; empty otherwise.")
    scores: list[float] = Field([], description="Score of each step by a process reward model; empty for other judges.")
    parts: dict[str, float] = Field(description="Summands of the reward by name: outcome, flaw, overlong.")

    @classmethod
    def from_scored(cls, scored: ScoredRollout) -> RewardRow:
        """Return the row of a scored rollout."""
        row = verdict_row(scored.verdict)
        del row["critique_tokens"]
        row["reason"] = scored.check_error or row["reason"]
        reward, parts = scored.reward.value, dict(scored.reward.parts)
        return cls(id=scored.rollout.problem.id, reward=reward, correct=scored.correct, parts=parts, **row)


class SlimeRequest(BaseModel):
    """One rollout, as the `remote_rm` of slime and of miles sends it."""

    prompt: Prompt
    response: Text
    label: Label

    def rollout(self) -> Rollout:
        """Return the rollout. Raise DataError if the prompt holds no question."""
        return read_rollout(self.prompt, self.response, self.label)


class OpenRLHFRequest(BaseModel):
    """Rollouts as OpenRLHF sends them to `--reward.remote_url`; `query` is the prompt and the response together."""

    query: Annotated[list[Text], Field(min_length=1, max_length=MAX_ROLLOUTS)]
    prompts: Annotated[list[Text], Field(max_length=MAX_ROLLOUTS)]
    labels: Annotated[list[Label], Field(max_length=MAX_ROLLOUTS)]

    def rollouts(self) -> list[Rollout]:
        """Return the rollouts. Raise DataError if the lists differ in length, or a query lacks its prompt."""
        if not len(self.query) == len(self.prompts) == len(self.labels):
            raise DataError("query, prompts and labels must have the same length")
        rows = zip(self.query, self.prompts, self.labels, strict=True)
        return [read_rollout(prompt, response_of_query(query, prompt), label) for query, prompt, label in rows]


class OpenRLHFResponse(BaseModel):
    """Rewards as OpenRLHF reads them."""

    rewards: list[float] = Field(description="Rewards that train the policy.")
    scores: list[float] = Field(description="1 for a correct final answer, else 0; OpenRLHF's filter reads them.")
    extra_logs: dict[str, float] = Field(description="Rates that OpenRLHF logs.")


def read_rollout(
    prompt: str | list[Turn], response: str | list[Turn], label: str | float, num_tokens: int = 0, id: str = ""
) -> Rollout:
    """Return the rollout of a request.

    Args:
        prompt: A text, a conversation, or a conversation rendered as text.
        response: Solution that the policy wrote, as text or as a conversation. A text without a special token at its
            end was cut off if the prompt ends with the opening tag of a thinking block that it does not close.
        label: Correct answer, or a worked solution that ends with it.
        num_tokens: Length of the response in tokens; 0 where unknown.
        id: Name of the rollout.

    Returns:
        The rollout.

    Raises:
        DataError: The prompt holds no question, the response no turn of an assistant, or the label no answer.
    """
    reference = answer_of_worked_solution(plain_text(label))
    if not reference:
        raise DataError("the label holds no final answer; send the correct answer")
    completion = whole_response(response, prompt) if isinstance(response, str) else response
    return make_rollout(Problem(id, question_of_prompt(prompt), reference), completion, num_tokens)
