r"""Tokens of a response with their alternatives, from the answer of a server or from a model in this process.

Only the tokens after a text such as `\boxed{` are kept, from the token with its last character on: log probabilities of
a whole critique would take a hundred times the memory of its text.

`choices[0].logprobs.content` of a chat completion has one entry for each token: {token, logprob, bytes, top_logprobs},
where `top_logprobs` is a list of {token, logprob, bytes}. Source: vLLM 0.32, `entrypoints/openai/chat_completion`;
SGLang, llama.cpp and OpenAI have the same form.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from fapo.types import TokenChoice

NUM_TOKENS = 8
"""Largest number of tokens that are kept: a brace, white space, dollar signs, and the digits of a number."""
NUM_ALTERNATIVES = 20
"""Number of most probable tokens at each place; OpenAI's limit, and vLLM's by default."""
DIGITS = 5
"""Decimal places of a log probability, the same in the response cache as in a new response."""
LEAST = -9999.0
"""Smallest log probability; servers write it for minus infinity, which JSON does not have."""
ROUNDING = 1e-3
"""Largest log probability that is taken for a rounded 0."""
_BLANK = re.compile(r"[\s$]+")
"""White space, which some servers leave out at the start of a token, and the dollar signs of mathematics."""


def bare(text: str) -> str:
    """Return a text without white space and dollar signs."""
    return _BLANK.sub("", text)


def kept_tokens(texts: Sequence[str], after: str) -> range:
    """Find the tokens that are kept.

    Args:
        texts: Text of each token of a response.
        after: Text before the answer; its last occurrence counts.

    Returns:
        Indices from the token with the last character of that text on, at most NUM_TOKENS; none without the text.
    """
    pieces = [bare(text) for text in texts]
    start = "".join(pieces).rfind(bare(after))
    if start < 0:
        return range(0)
    first = bisect_left(list(accumulate(map(len, pieces))), start + len(bare(after)))
    return range(first, min(first + NUM_TOKENS, len(pieces)))


def token_choice(own: tuple[str, float], *others: tuple[str, float]) -> TokenChoice:
    """Return a token with its alternatives.

    Args:
        own: Text and log probability of the token.
        *others: Text and log probability of the most probable tokens, which may have it among them.

    Returns:
        The token. Alternatives of the same text stay apart, because they are different tokens.
    """
    among = any(text == own[0] for text, _ in others)
    pairs = others if among else (own, *others)
    return TokenChoice(own[0], tuple((text, round(logprob, DIGITS)) for text, logprob in pairs))


def served_choices(logprobs: Any, after: str) -> tuple[TokenChoice, ...] | None:
    """Return the tokens that are kept of the answer of a server.

    Args:
        logprobs: Value of `logprobs` in a choice of a chat completion.
        after: Text before the answer; its last occurrence counts.

    Returns:
        The tokens; None if there are no log probabilities, or one of these tokens has some that cannot be read.
    """
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    entries = content if isinstance(content, list) else []
    texts = [entry["token"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("token"), str)]
    if not texts or len(texts) < len(entries):
        return None
    found = [_choice(entries[index]) for index in kept_tokens(texts, after)]
    return None if None in found else tuple(choice for choice in found if choice)


def _choice(entry: Any) -> TokenChoice | None:
    """Return the token in an entry; None if it is none."""
    top = entry.get("top_logprobs")
    own, *others = (_pair(item) for item in (entry, *(top[:NUM_ALTERNATIVES] if isinstance(top, list) else ())))
    return None if own is None or None in others else token_choice(own, *(pair for pair in others if pair))


def _pair(entry: Any) -> tuple[str, float] | None:
    """Return the text and the log probability in an entry; None if one of them is missing or no such value."""
    text, logprob = (entry.get("token"), entry.get("logprob")) if isinstance(entry, dict) else (None, None)
    if not isinstance(text, str) or isinstance(logprob, bool) or not isinstance(logprob, int | float):
        return None
    return (text, float(max(min(logprob, 0), LEAST))) if logprob <= ROUNDING else None  # NaN is not below it
