"""The records that move through the pipeline: problem -> rollout -> verdict -> reward. Frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

VerdictStatus = Literal["ok", "unparsable", "failed"]
OnUnscored = Literal["mask", "correctness_only", "raise"]


@dataclass(frozen=True)
class Problem:
    """A question with a verifiable answer."""

    id: str
    """Unique within its data set."""
    text: str
    """What the policy is asked."""
    reference: str
    """The right final answer, as text."""
    source: str = ""
    """Where it comes from (data set or split); results are also broken down by it."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Anything else the row carried; never read by the reward."""


@dataclass(frozen=True)
class Rollout:
    """One solution sampled from a policy."""

    problem: Problem
    """What it answers."""
    response: str
    """The text the policy wrote."""
    num_tokens: int = 0
    """Length of the response in tokens; 0 where unknown."""
    truncated: bool = False
    """True when the length limit cut it off."""

    @classmethod
    def from_text(cls, problem: Problem, response: str, num_tokens: int, max_tokens: int) -> Rollout:
        """Return a rollout that counts as truncated when it is as long as the limit.

        Args:
            problem: Problem that it answers.
            response: Text that the policy wrote.
            num_tokens: Length of the response in tokens.
            max_tokens: Length limit in tokens; 0 for no limit.
        """
        return cls(problem, response, num_tokens, truncated=0 < max_tokens <= num_tokens)

    @property
    def judge_key(self) -> tuple[str, str, str]:
        """What a judge sees: problem, reference and response. Rollouts with the same key are judged once."""
        return self.problem.text, self.problem.reference, self.response


@dataclass(frozen=True)
class Verdict:
    """Judgement of one rollout by a judge. "No verdict" and "no error found" are different things."""

    status: VerdictStatus
    """ok: a verdict; unparsable: the judge answered, but without a valid verdict; failed: it did not answer."""
    flawed: bool | None = None
    """True: an error was found; False: none was found; None: there is no verdict (status is not ok)."""
    error_step: int | None = None
    """Index (from 0) of the earliest wrong step; None where no step is known, as from a yes/no judge."""
    critique: str = ""
    """Full text that the judge wrote."""
    reason: str = ""
    """Explanation why there is no verdict, or why the judge was not asked; empty otherwise."""
    num_tokens: int = 0
    """Length of the critique in tokens; 0 where unknown."""

    def __post_init__(self) -> None:
        if self.status == "ok" and self.flawed is None:
            raise ValueError("a verdict with status ok needs flawed=True or flawed=False")
        if self.status != "ok" and self.flawed is not None:
            raise ValueError(f"there is no verdict when status is {self.status}; flawed must be None")
        if self.error_step is not None and not self.flawed:
            raise ValueError(f"error_step is {self.error_step}, but flawed is {self.flawed}; a step needs flawed=True")

    @classmethod
    def from_step(cls, error_step: int | None, critique: str = "", num_tokens: int = 0) -> Verdict:
        """Return the verdict of a judge that names the earliest wrong step.

        Args:
            error_step: Index (from 0) of the earliest wrong step; None for "no error found".
            critique: Full text that the judge wrote.
            num_tokens: Length of the critique in tokens.

        Returns:
            A verdict with status ok.
        """
        return cls("ok", error_step is not None, error_step, critique, num_tokens=num_tokens)


@dataclass(frozen=True)
class Reward:
    """What a rollout earns."""

    value: float | None
    """The reward; None = unscored."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Its summands by name (outcome, flaw, process, overlong)."""


RolloutClass = Literal["fully_correct", "flawed", "wrong", "unscored"]
"""Class of a rollout; flawed: a correct answer with an error in the reasoning; unscored: a correct one, no verdict."""


def rollout_class(correct: bool, flawed: bool | None) -> RolloutClass:
    """Return the class of a rollout.

    Args:
        correct: Whether the final answer is correct.
        flawed: Whether the reasoning has an error; None where it is not known. It is not read for a wrong answer.
    """
    if not correct:
        return "wrong"
    return "unscored" if flawed is None else "flawed" if flawed else "fully_correct"


class GroundTruth(NamedTuple):
    """Knowledge of an oracle, or of a label, about a solution."""

    error_step: int | None
    """Index (from 0) of the first wrong step; None: there is none."""
    flaw: str | None = None
    """Kind of flaw, None where there is none or the kind is not known."""

    @property
    def flawed(self) -> bool:
        """Whether there is a wrong step."""
        return self.error_step is not None


Message = dict[str, str]
"""One chat message: {"role": ..., "content": ...}."""


@dataclass(frozen=True)
class Completion:
    """One answer of a chat model, from a server or from a model in this process."""

    text: str = ""
    """What it wrote."""
    num_tokens: int = 0
    """Tokens it wrote; 0 where unknown."""
    error: str = ""
    """Why there is no answer; empty when there is one."""
    seconds: float = field(default=0.0, compare=False)
    """How long the try that succeeded took; 0 where unknown."""


class ChatModel(Protocol):
    """A chat model: one completion for each conversation, in order. Never raises for a single failed request."""

    async def __call__(self, conversations: Sequence[list[Message]]) -> list[Completion]: ...


class Progress(Protocol):
    """Callback for the progress of a long task, called each time a part of the task is done."""

    def __call__(self, task: str, done: int, total: int, metrics: Mapping[str, float] = ..., /) -> None:
        """Show the progress.

        Args:
            task: Name of the task, such as "sample"; a command may have several.
            done: Number of parts that are done.
            total: Number of all parts.
            metrics: Numbers of the latest part, such as the loss of a training step.
        """


class Judge(Protocol):
    """Gives one verdict for each rollout, in order. Never raises for a single failed judgement."""

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Verdict]: ...


@dataclass(frozen=True)
class LabelledSolution:
    """A solution whose first wrong step is known: what a GenRM is trained and evaluated on."""

    problem: Problem
    """What it answers; the reference is empty where the data has none."""
    steps: tuple[str, ...]
    """The solution, cut into the steps the label counts."""
    error_step: int | None
    """Index (from 0) of the first wrong step; None for "no wrong step"."""
    correct: bool
    """Whether its final answer is right."""
    critique: str = ""
    """A critique that says so, for a GenRM to imitate; empty where the data has none."""
    mislabelled: bool = False
    """Whether label noise replaces the label: training then uses `wrong_step` instead of `error_step`."""
    wrong_step: int | None = None
    """Wrong label used for training when `mislabelled` is set; None means "no wrong step"."""

    @property
    def training_label(self) -> int | None:
        """Label used for training, which may be noisy; measurements use `error_step`."""
        return self.wrong_step if self.mislabelled else self.error_step


@dataclass(frozen=True)
class ScoredRollout:
    """A rollout with all that was found out about it."""

    rollout: Rollout
    """The rollout."""
    correct: bool
    """Its final answer is right (for a critique: its label is right)."""
    verdict: Verdict | None
    """What the judge said; None when it was not asked. For a critique: what the critique itself says."""
    reward: Reward
    """What it earns."""

    @property
    def flawed(self) -> bool | None:
        """True or False by verdict, None without one."""
        return None if self.verdict is None else self.verdict.flawed

    @property
    def rollout_class(self) -> RolloutClass:
        """Class of the rollout, by verdict."""
        return rollout_class(self.correct, self.flawed)
