"""Completions as they are checked, judged and recorded, under every engine and in every command.

The response is what follows the thinking of the last assistant turn. The turns before it, and the results of tools
between them, are judged with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from fapo.data.steps import split_steps
from fapo.errors import DataError
from fapo.types import Given, Message, Problem, Rollout, StepRule

_THINKING = re.compile(
    r"<(/?)(?:\w+:)?(?:think(?:ing)?|thought)>|\[(/?)THINK\]|◁(/?)think▷|<\|(?:begin|(end))_of_thought\|>"
)
"""Tags around thinking: <think>, <thinking>, <thought>, <seed:think>, [THINK], ◁think▷, <|begin_of_thought|>; a group
holds the slash, or the word, of a closing tag."""
_REASONING = ("reasoning_content", "reasoning", "thinking")
"""Keys under which a message holds thinking that was set apart from its text."""


def without_thinking(text: str) -> str:
    """Return what follows the last closed thinking block.

    Chat templates often write the opening tag, so it may be missing. An unclosed block is a text that was cut off
    before its answer: the result is empty then. A text without tags is returned as it is.
    """
    tags = list(_THINKING.finditer(text))
    if not tags:
        return text
    return text[tags[-1].end() :].strip() if any(tags[-1].groups()) else ""


def opens_thinking(prompt: str) -> bool:
    """Return whether a rendered prompt ends with the opening tag of a thinking block, as some chat templates do."""
    *_, last = [None, *_THINKING.finditer(prompt)]
    return last is not None and not any(last.groups()) and not prompt[last.end() :].strip()


def closes_unopened_thinking(text: str) -> bool:
    """Return whether the first tag of a text closes a thinking block, which the prompt must have opened."""
    first = _THINKING.search(text)
    return first is not None and any(first.groups())


def read_completion(completion: Any) -> tuple[str, tuple[str | Given, ...]]:
    """Return the response in a completion, and the turns before it.

    Messages before the first and after the last assistant turn are left out: the first are the prompt, and nothing
    was written with the others. A tool call is a paragraph at the end of its turn.

    Args:
        completion: Text, or a conversation (list of messages).

    Returns:
        Text of the last assistant turn; earlier turns, `Given` for those of tools and users. All without thinking.

    Raises:
        DataError: It is neither a text nor a conversation with an assistant turn, or a message has no text; the error
            has no place.
    """
    if isinstance(completion, str):
        return without_thinking(completion), ()
    turns = completion if isinstance(completion, Sequence) else ()
    written = [i for i, turn in enumerate(turns) if isinstance(turn, Mapping) and _is_written(turn)]
    if not written or not all(isinstance(turn, Mapping) for turn in turns):
        raise DataError(f"must be a text, or a conversation with an assistant's turn, is {str(completion)[:40]!r}")
    *earlier, last = map(_turn, turns[written[0] : written[-1] + 1])
    assert isinstance(last, str), "the last turn is the assistant's"
    return last, tuple(earlier)


def make_rollout(
    problem: Problem, completion: Any, num_tokens: int = 0, *, truncated: bool = False, thinking: bool = False
) -> Rollout:
    """Return a completion as a rollout.

    Args:
        problem: Problem that it answers.
        completion: Text, or a conversation (list of messages).
        num_tokens: Length in tokens, with thinking and results of tools; 0 where unknown.
        truncated: Whether the length limit ended it.
        thinking: Whether the prompt ends with the opening tag of a thinking block. A truncated completion that has not
            closed the block has an empty response.

    Returns:
        The rollout.

    Raises:
        DataError: The completion is neither a text nor a conversation with an assistant turn.
    """
    response, earlier = read_completion(completion)
    if thinking and truncated and _has_no_thinking(completion):
        response = ""
    return Rollout(problem, response, num_tokens, truncated, earlier)


def reaches_limit(num_tokens: int, max_tokens: int) -> bool:
    """Return whether a completion of this length is taken as truncated by a limit in tokens; a limit of 0 is none."""
    return 0 < max_tokens <= num_tokens


def judged_steps(rollout: Rollout, rule: StepRule) -> list[str | Given]:
    """Return the steps that a judge sees: those of each assistant turn by a rule, and each given turn as one step."""
    turns = *rollout.earlier_turns, rollout.response
    return [step for turn in turns for step in ([turn] if isinstance(turn, Given) else split_steps(turn, rule))]


def as_messages(rollout: Rollout) -> list[Message]:
    """Return a rollout as a conversation, from which `read_completion` reads the same response and earlier turns."""
    turns = *rollout.earlier_turns, rollout.response
    return [
        {"role": "tool", "content": turn.text} if isinstance(turn, Given) else {"role": "assistant", "content": turn}
        for turn in turns
    ]


def _has_no_thinking(completion: Any) -> bool:
    """Return whether neither tags nor keys of the last turn are about thinking."""
    if isinstance(completion, str):
        return not _THINKING.search(completion)
    last = next(turn for turn in reversed(completion) if _is_written(turn))
    return not any(key in last for key in _REASONING) and not _THINKING.search(message_text(last.get("content")))


def _is_written(message: Mapping[str, Any]) -> bool:
    """Return whether the policy wrote a message; TRL leaves out the role where a tokenizer's parser does."""
    return bool(message.get("role", "assistant") == "assistant")


def _turn(message: Mapping[str, Any]) -> str | Given:
    """Return the text of a message, with its tool calls; `Given` if the policy did not write it."""
    text = message_text(message.get("content"))
    if not _is_written(message):
        return Given(text)
    calls = message.get("tool_calls") or ()
    if isinstance(calls, str) or not isinstance(calls, Sequence):
        raise DataError(f"has a message with tool_calls {str(calls)[:40]!r}, which must be a list")
    return "\n\n".join(part for part in (without_thinking(text), *map(_call, calls)) if part)


def message_text(content: Any) -> str:
    """Return the text in the content of a message; of a list of blocks the texts, and the type of all others.

    Raises DataError, without a place, for any other content.
    """
    if isinstance(content, str) or content is None:
        return content or ""
    if not isinstance(content, Sequence) or not all(isinstance(block, Mapping) for block in content):
        raise DataError(f"has a message whose content is {str(content)[:40]!r}, must be a text")
    return "\n".join(str(block.get("text") or f"({block.get('type')})") for block in content)


def _call(call: Any) -> str:
    """Return a tool call as one line: its name and its arguments, whatever their form."""
    call = call if isinstance(call, Mapping) else {"name": call}
    function = call.get("function")
    function = function if isinstance(function, Mapping) else call
    arguments = function.get("arguments")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False, default=str)
    line = f"Tool call: {function.get('name')}({' '.join(text.split())})"
    return _THINKING.sub(lambda tag: f"\\u{ord(tag[0][0]):04x}{tag[0][1:]}", line)  # no thinking of this turn
