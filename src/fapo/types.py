"""Records of the pipeline (problem, rollout, verdict, reward, ...), and the protocols of chat models and judges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

VerdictStatus = Literal["ok", "unparsable", "failed"]
"""Status of a verdict; see `Verdict.status`."""
OnUnscored = Literal["mask", "correctness_only", "raise"]
"""Rule for a rollout without a verdict: no reward, the reward for the answer alone, or an error."""
AnswerFormat = Literal["boxed", "json"]
"""Form of the verdict in a critique: the last boxed value, or JSON that the server enforces."""
StepRule = Literal["paragraphs", "lines"]
"""Rule by which a solution is split into steps; see `fapo.data.steps.split_steps`."""
FlawKind = Literal["slip", "skip", "guess", "cancellation", "format"]
"""Kind of flaw in a solution of the miniature; see `fapo.data.miniature.oracle.examine`."""


@dataclass(frozen=True)
class Problem:
    """A question with a verifiable answer."""

    id: str
    """Identifier, unique within the data set."""
    text: str
    """Question for the policy."""
    reference: str
    """Correct final answer, as text."""
    source: str = ""
    """Data set or split that the problem comes from; results are also given for each source."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Other columns of the row; the reward does not use them."""


@dataclass(frozen=True)
class Given:
    """Text in a solution that the policy did not write, such as the result of a tool; it is never the wrong step."""

    text: str
    """The text."""

    def strip(self) -> Given:
        """Return the same without white space around the text, as `str.strip` does."""
        return Given(self.text.strip())


@dataclass(frozen=True)
class Rollout:
    """One solution sampled from a policy; `fapo.data.trajectory.make_rollout` makes one from a completion."""

    problem: Problem
    """Problem that the policy was asked to solve."""
    response: str
    """Text that the policy wrote in its last turn, after thinking; it holds the answer."""
    num_tokens: int = 0
    """Length of the completion in tokens; 0 where unknown."""
    truncated: bool = False
    """Whether the length limit ended the completion."""
    earlier_turns: tuple[str | Given, ...] = ()
    """Turns before the response: text that the policy wrote, with its tool calls, and results of tools."""

    @property
    def judge_key(self) -> tuple[str, str, str, tuple[str | Given, ...]]:
        """Problem, reference and all turns, which is what a judge sees. Rollouts with one key are judged once."""
        return self.problem.text, self.problem.reference, self.response, self.earlier_turns


@dataclass(frozen=True)
class Verdict:
    """Judgement of one rollout by a judge. "No verdict" and "no error found" are different things."""

    status: VerdictStatus
    """ok: there is a verdict; unparsable: the judge's answer has no valid verdict; failed: the judge did not answer."""
    flawed: bool | None = None
    """True: an error was found; False: none was found; None: there is no verdict (status is not ok)."""
    error_step: int | None = None
    """Index (from 0) of the earliest wrong step; None where no step is known, as from a yes/no judge."""
    critique: str = ""
    """Full text that the judge wrote."""
    reason: str = ""
    """Reason why there is no verdict, or why the judge was not asked; empty otherwise. An unparsable verdict has one of
    the few reasons in `fapo.judge.verdicts`, so that reasons can be counted."""
    num_tokens: int = 0
    """Length of the critique in tokens; 0 where unknown."""
    scores: tuple[float, ...] = ()
    """Score of each step that the policy wrote, from 0 (wrong) to 1; empty unless a process reward model judged."""
    seconds: float = field(default=0.0, compare=False)
    """Duration of the answer in seconds, see `Completion.seconds`; 0 where unknown."""
    flag_rate: float | None = None
    """Rate of the judge's votes that flag, among those with a verdict; None without several votes."""
    flag_probability: float | None = None
    """Probability of a flaw by the log probabilities of the verdict's tokens, of several votes the mean; None where
    they were not asked for, or are not known."""
    all_tokens: int = 0
    """Length of all critiques behind the verdict in tokens: of each vote, and of both judges of a cascade; 0 without
    several critiques."""
    given_by: Literal["", "cheap", "strong"] = ""
    """Judge of a cascade that gave the verdict; empty for other judges."""

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
    """Reward of a rollout."""

    value: float | None
    """The reward; None for an unscored rollout."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Summands of the reward by name (outcome, flaw, process, overlong)."""


RolloutClass = Literal["fully_correct", "flawed", "wrong", "unscored"]
"""Class of a rollout. flawed: a correct answer with an error in the reasoning; unscored: a correct one without a
verdict, or one that the answer check failed on."""


def rollout_class(correct: bool, flawed: bool | None) -> RolloutClass:
    """Return the class of a rollout.

    Args:
        correct: Whether the final answer is correct.
        flawed: Whether the reasoning has an error; None where it is not known. It is not read for a wrong answer.

    Returns:
        The class.
    """
    if not correct:
        return "wrong"
    return "unscored" if flawed is None else "flawed" if flawed else "fully_correct"


class GroundTruth(NamedTuple):
    """Knowledge of an oracle, or of a label, about a solution."""

    error_step: int | None
    """Index (from 0) of the first wrong step; None without a wrong step."""
    flaw: str | None = None
    """Kind of flaw; None without a flaw and where the kind is not known."""
    answer_correct: bool | None = None
    """For a labelled solution whether its final answer is correct; None for a rollout of a policy."""

    @property
    def flawed(self) -> bool:
        """Whether there is a wrong step."""
        return self.error_step is not None


Message = dict[str, str]
"""One chat message: {"role": ..., "content": ...}."""


class Constrained(list[Message]):
    """A conversation with an answer that is JSON of a given form; only servers can be asked for that."""

    def __init__(self, messages: Iterable[Message], schema: Mapping[str, Any]) -> None:
        super().__init__(messages)
        self.schema = schema
        """JSON schema of the answer."""


class StepTokens(list[Message]):
    """A solution as tokens, which only process reward models take; as a conversation it is empty."""

    def __init__(self, tokens: Sequence[int], ends: Sequence[int]) -> None:
        super().__init__()
        self.tokens = tuple(tokens)
        """Token ids of the problem and the steps, [T]."""
        self.ends = tuple(ends)
        """Index of the last token of each step, [N]; all of these tokens are the same separator."""


@dataclass(frozen=True, slots=True)
class TokenChoice:
    """A token of a response, with the most probable tokens at its place."""

    text: str
    """Text of the token."""
    alternatives: tuple[tuple[str, float], ...]
    """Text and natural log probability of the most probable tokens at this place, and of the token itself."""


@dataclass(frozen=True)
class Completion:
    """Response of a chat model, from a server or from a model in this process."""

    text: str = ""
    """Text of the response."""
    num_tokens: int = 0
    """Length of the response in tokens; 0 where unknown."""
    error: str = ""
    """Reason why there is no response; empty where there is one."""
    truncated: bool = False
    """Whether the length limit ended the response."""
    token_choices: tuple[TokenChoice, ...] = ()
    """Tokens at the start of an answer in the response; empty unless log probabilities after a text were requested."""
    prompt_tokens: int = field(default=0, compare=False)
    """Length of the prompt in tokens, as the model counts it; 0 where unknown."""
    cached_tokens: int = field(default=0, compare=False)
    """Number of tokens of the prompt that the server had in its prefix cache; 0 where unknown."""
    from_cache: bool = field(default=False, compare=False)
    """Whether the response comes from our own response cache, without a request."""
    seconds: float = field(default=0.0, compare=False)
    """Duration of the successful try in seconds, for a model in this process of its batch; 0 where unknown."""


class ChatModel(Protocol):
    """A chat model. A failed request is a completion with an error, not an exception."""

    async def __call__(self, conversations: Sequence[list[Message]]) -> list[Completion]:
        """Return one completion for each conversation, in order."""


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
    """A judge of rollouts. A failed request is a verdict with status failed, not an exception."""

    async def __call__(self, rollouts: Sequence[Rollout]) -> list[Verdict]:
        """Return one verdict for each rollout, in order."""


def unwrapped(judge: Judge | None) -> Iterator[Judge]:
    """Yield a judge, and those that it is wrapped around, from the outside in; nothing for None."""
    while judge:
        yield judge
        judge = getattr(judge, "judge", None)


@dataclass(frozen=True)
class LabelledSolution:
    """A solution with a known first wrong step; a GenRM is trained and evaluated on such solutions."""

    problem: Problem
    """Problem that was solved; its reference is empty where the data has none."""
    steps: tuple[str, ...]
    """Steps of the solution; `error_step` is an index into them."""
    error_step: int | None
    """Label: index (from 0) of the first wrong step; None for "no wrong step"."""
    correct: bool
    """Whether the final answer is correct."""
    critique: str = ""
    """Critique that agrees with the label, for a GenRM to imitate; empty where the data has none."""
    mislabelled: bool = False
    """Whether label noise replaces the label; training then uses `wrong_step` instead of `error_step`."""
    wrong_step: int | None = None
    """Wrong label used for training when `mislabelled` is set; None means "no wrong step"."""

    @property
    def training_label(self) -> int | None:
        """Label used for training, which may be noisy; measurements use `error_step`."""
        return self.wrong_step if self.mislabelled else self.error_step


@dataclass(frozen=True)
class ScoredRollout:
    """A rollout with answer check, verdict and reward."""

    rollout: Rollout
    """Rollout that was scored."""
    correct: bool
    """Whether the final answer is correct; for a critique, whether its "flawed" agrees with the label."""
    verdict: Verdict | None
    """Verdict of the judge, None if it was not asked; for a critique, the verdict in it."""
    reward: Reward
    """Reward of the rollout."""
    check_error: str = ""
    """Reason why a checker of the user failed; the rollout is then unscored, and counts as not correct. Else empty."""

    @property
    def flawed(self) -> bool | None:
        """`Verdict.flawed`; None without a verdict."""
        return None if self.verdict is None else self.verdict.flawed

    @property
    def rollout_class(self) -> RolloutClass:
        """Class of the rollout, by verdict."""
        return "unscored" if self.check_error else rollout_class(self.correct, self.flawed)
