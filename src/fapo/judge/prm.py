"""A process reward model as a judge: a score for each step, and a verdict by a threshold.

The form of the prompt is that of the models' training: the problem, then the steps, each with a separator token after
it. The score of a step is the probability of "correct" at its separator. Qwen2.5-Math-PRM and TRL's `PRMTrainer` have
this form.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fapo.data.untrusted_text import escape, show_invisible
from fapo.errors import ConfigError
from fapo.inference.step_scores import why_no_scores
from fapo.inference.usage import UsageMeter
from fapo.judge.asking import AskingJudge
from fapo.types import ChatModel, Completion, Given, Message, Problem, StepRule, StepTokens, Verdict


def first_below(scores: Iterable[float], threshold: float) -> int | None:
    """Return the index of the first score below a threshold.

    Args:
        scores: One score for each step.
        threshold: Limit; a score at the threshold is not below it.

    Returns:
        Index from 0; None if no score is below the threshold.
    """
    return next((index for index, score in enumerate(scores) if score < threshold), None)


@dataclass(frozen=True)
class StepTokenizer:
    """Turns a problem and the steps of a solution into tokens with a separator after each step."""

    tokenizer: Any
    """Tokenizer of the process reward model."""
    name: str
    """Name of the tokenizer, for messages."""
    separator: str = "<extra_0>"
    """Token that ends each step."""
    prompt: Literal["chat", "plain"] = "chat"
    """Text before the steps: the problem in the model's chat template, or as it stands."""

    def __post_init__(self) -> None:
        if len(self._tokens(self.separator, trusted=True)) != 1:
            raise ConfigError(
                f"judge.separator: {self.separator!r} is not one token of {self.name}; name the token that ended each "
                'step in the training of the model, such as "\\n"'
            )
        if self.prompt == "chat" and not self.tokenizer.chat_template:
            raise ConfigError(f'judge.prompt: {self.name} has no chat template; set prompt = "plain"')

    def __call__(self, problem: Problem, steps: Sequence[str | Given]) -> StepTokens:
        """Return the tokens of a solution.

        No text becomes a separator or another special token: the policy could otherwise shift the scores of its steps.

        Args:
            problem: Problem that was solved. A process reward model does not read the reference.
            steps: Steps of the solution; a `Given` step is part of the text, without a separator.

        Returns:
            Tokens, and the index of the separator of each step that is not given.
        """
        separator = self._tokens(self.separator, trusted=True)
        if self.prompt == "chat":
            question = [{"role": "user", "content": escape(problem.text, lambda _text, _start: False)}]
            rendered = self.tokenizer.apply_chat_template(question, add_generation_prompt=True, return_dict=True)
            tokens = list(rendered["input_ids"])
        else:
            bos = self.tokenizer.bos_token_id
            tokens = [*([] if bos is None else [bos]), *self._tokens(problem.text)]
        ends = []
        for step in steps:
            if isinstance(step, Given):
                tokens += self._tokens(f"{step.text.strip()}\n")
            else:
                tokens += [*self._tokens(step.strip()), *separator]
                ends.append(len(tokens) - 1)
        return StepTokens(tokens, ends)

    def _tokens(self, text: str, trusted: bool = False) -> list[int]:
        """Return the tokens of a text; text that is not trusted has no separator, and no special token."""
        if not trusted:
            text = show_invisible(text)
            if self.separator.strip():  # a line break is ordinary text; only the places of separators count
                text = text.replace(self.separator, f"&#{ord(self.separator[0])};{self.separator[1:]}")
        encoded = self.tokenizer(text, add_special_tokens=False, split_special_tokens=not trusted)
        return list(encoded["input_ids"])


@dataclass(frozen=True)
class PRM(AskingJudge):
    """A `Judge` that flags the first step with a score below a threshold."""

    tokenize: StepTokenizer
    """Form of the model's prompt."""
    complete: ChatModel
    """Model that scores steps: `PoolingClient`, `TokenClassifier`, or either behind a response cache."""
    threshold: float = 0.5
    """Score below which a step is wrong."""
    steps: StepRule = "paragraphs"
    """Rule by which responses are split into steps."""
    min_words: int = 0
    """Minimum number of words outside boxed answers; a shorter solution is flagged unread. 0: no minimum."""
    usage: UsageMeter = field(default_factory=UsageMeter, repr=False, compare=False)
    """Tokens that the model has read."""

    def build(self, problem: Problem, steps: Sequence[str | Given]) -> list[Message]:
        """Return the tokens that the model scores."""
        return self.tokenize(problem, steps)

    def parse(self, answer: Completion, given: Sequence[bool]) -> Verdict:
        """Return the verdict by the scores in an answer; `given` says of each step if the policy did not write it."""
        if answer.error:
            return Verdict("failed", reason=answer.error)
        scores = tuple(json.loads(answer.text))
        written = [index for index, is_given in enumerate(given) if not is_given]
        if len(scores) != len(written):
            return Verdict("failed", reason=f"{len(scores)} scores for {len(written)} steps")
        if why := why_no_scores(scores):
            return Verdict("failed", reason=why)
        found = first_below(scores, self.threshold)
        step = None if found is None else written[found]
        return Verdict("ok", step is not None, step, scores=scores)
