"""A judge for verifiers (0.4): it lowers the reward of a rollout that is right with flawed reasoning.

    [[env.taskset.task.judges]]
    id = "fapo"
    base_url = "http://localhost:8000/v1"
    api_key_var = "JUDGE_API_KEY"
    model = "genrm"

It runs after the rewards of the task. A rollout with a positive reward is judged; other rollouts are not.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from verifiers.v1 import Judge as VerifiersJudge
from verifiers.v1 import JudgeConfig, Task, Trace
from verifiers.v1.judge import judge_question
from verifiers.v1.types import AssistantMessage, SystemMessage, UserMessage

from fapo.data.trajectory import make_rollout
from fapo.errors import JudgeError
from fapo.judge.genrm import GenRM
from fapo.judge.template import load_template
from fapo.types import Completion, Message, Problem, Verdict

__all__ = ["FlawedPositiveJudge", "FlawedPositiveJudgeConfig"]


class FlawedPositiveJudgeConfig(JudgeConfig):
    """Settings of the judge; those of the server are verifiers' own."""

    id: str = "fapo"
    """Name of the plug-in."""
    template: str = "locate"
    """Prompt of the judge: locate, locate_small, yes_no, compact or a file."""
    penalty: float = Field(0.5, ge=0)
    """Amount subtracted from the reward of a flawed rollout. With rewards of 0 and 1, 0.5 is the paper's lambda = 1."""
    max_tokens: int = Field(4096, ge=1)
    """Length limit of a critique in tokens."""
    answer_field: str = "answer"
    """Field of the task with the correct answer."""
    question_field: str = ""
    """Field of the task with the question; empty: its prompt."""


class FlawedPositiveJudge(VerifiersJudge[Verdict, FlawedPositiveJudgeConfig]):
    """The judge. Its score is 0, or minus the penalty for a flawed rollout; without a verdict it raises an error."""

    async def score(self, task: Task, trace: Trace) -> float:
        """Return the score of a rollout.

        Args:
            task: Data of the task.
            trace: Rollout with the rewards of the task.

        Returns:
            Minus the penalty if the reward so far is positive and the judge finds an error, else 0.

        Raises:
            JudgeError: There is no verdict. verifiers then records an error of the rollout; its other rewards stay.
        """
        if trace.reward <= 0:
            return 0.0
        answer = getattr(task, self.config.answer_field, None)
        if answer is None:
            raise JudgeError(f"the task has no field {self.config.answer_field!r}; set answer_field of the judge")
        problem = Problem(str(trace.id), judge_question(task, self.config.question_field), str(answer))
        rollout = make_rollout(problem, [message.model_dump(exclude_none=True) for message in trace.messages])

        async def complete(conversations: Sequence[list[Message]]) -> list[Completion]:
            return [await self._complete(conversation, trace) for conversation in conversations]

        (verdict,) = await GenRM(load_template(self.config.template), complete)([rollout])
        if verdict.flawed is None:
            raise JudgeError(f"no verdict on the rollout: {verdict.reason}")
        trace.record_metric("flawed_positive", float(verdict.flawed))
        return -self.config.penalty if verdict.flawed else 0.0

    async def _complete(self, conversation: list[Message], trace: Trace) -> Completion:
        """Return the critique; verifiers sends the request, and records it with its tokens and cost."""
        kinds = {"system": SystemMessage, "user": UserMessage, "assistant": AssistantMessage}
        messages = [kinds[message["role"]](content=message["content"]) for message in conversation]
        limit = self.config.max_tokens
        answer = await self.complete(messages, trace=trace, max_tokens=limit)
        num_tokens = answer.usage.completion_tokens if answer.usage else 0
        return Completion(answer.text, num_tokens, truncated=num_tokens >= limit)
