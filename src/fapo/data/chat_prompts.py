"""Find the question in a prompt as a trainer sends it: a conversation, or a conversation rendered as text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from fapo.data.trajectory import opens_thinking
from fapo.errors import DataError

USER_TURNS = (
    ("<|im_start|>user\n", "<|im_end|>"),  # ChatML: Qwen, SmolLM2, Yi
    ("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>"),  # Llama 3
    ("<start_of_turn>user\n", "<end_of_turn>"),  # Gemma
    ("<|user|>\n", "<|end|>"),  # Phi
    ("<｜User｜>", "<｜Assistant｜>"),  # DeepSeek
    ("[INST]", "[/INST]"),  # Mistral
)
"""Marks that chat templates write before and after the turn of a user."""
END_MARKS = re.compile(
    r"(?:\s*(?:<\|im_end\|>|<\|endoftext\|>|<\|eot_id\|>|<\|end_of_text\|>|<end_of_turn>|<eos>|<\|end\|>"
    r"|<｜end▁of▁sentence｜>|</s>))+\s*\Z"
)
"""Marks that a model writes at the end of its response."""
FIRST_TOKEN = re.compile(r"\A\s*(?:<[^<>\s]+>|\[[A-Z]+\])")
"""Special token that a tokenizer writes before a prompt, such as <s> or <|begin_of_text|>."""


def question_of_prompt(prompt: str | Sequence[Mapping[str, Any]]) -> str:
    """Return the question in a prompt.

    Args:
        prompt: A text, a conversation, or a conversation that a chat template has rendered as text. The templates of
            Qwen, Llama 3, Gemma, Phi, DeepSeek and Mistral are known.

    Returns:
        The last turn of the user; a text without such a turn as it is.

    Raises:
        DataError: The conversation has no turn of a user that is a text.
    """
    if isinstance(prompt, str):
        return _last_rendered_turn(prompt)
    turns = [turn.get("content") for turn in prompt if turn.get("role") == "user"]
    if not turns or not isinstance(turns[-1], str):
        raise DataError("the conversation has no turn of a user that is a text; send one, or the prompt as a text")
    return turns[-1]


def response_of_query(query: str, prompt: str) -> str:
    """Return the response in the text of a prompt and its response.

    Args:
        query: Prompt and response, as decoded from their tokens with the special ones. A tokenizer may have added a
            special token before the prompt.
        prompt: The prompt.

    Returns:
        The text after the prompt, with the special tokens at its end.

    Raises:
        DataError: The query does not hold the prompt at its start.
    """
    after_token = FIRST_TOKEN.sub("", query)
    for rest in (query, after_token, after_token.lstrip()):
        if rest.startswith(prompt):
            return rest.removeprefix(prompt)
    raise DataError("the query does not start with its prompt; send both as the trainer has tokenized them")


def whole_response(response: str, prompt: str | Sequence[Mapping[str, Any]]) -> str:
    """Return a response without the special tokens at its end, and with the tag of its thinking that the prompt has.

    Args:
        response: Text that the policy wrote.
        prompt: Its prompt: a text, a conversation, or a conversation rendered as text.

    Returns:
        The response. Where a rendered prompt ends with the opening tag of a thinking block, a response without a
        special token at its end begins with that tag, so that thinking which was cut off is no solution.
    """
    text = END_MARKS.sub("", response)
    cut_off = text == response
    return f"<think>{text}" if cut_off and isinstance(prompt, str) and opens_thinking(prompt) else text


def _last_rendered_turn(text: str) -> str:
    """Return the last turn of a user in a rendered conversation; a text without marks is returned as it is."""
    begin, end = max(USER_TURNS, key=lambda marks: text.rfind(marks[0]))
    if (start := text.rfind(begin)) < 0:
        return text
    return text[start + len(begin) :].partition(end)[0].strip()
