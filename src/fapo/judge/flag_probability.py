r"""The probability of a flaw in a single critique, by the log probabilities of the verdict's tokens.

P(flaw) = F / (F + C). Given all that the judge wrote before its verdict, F is the probability that the verdict begins
like one that flags (a digit, yes, true), and C that it begins like one that clears (-, no, false). Tokens that begin in
another way do not count, nor do those that are not among the most probable ones.

A tokenizer may join the end of `\boxed{` and the beginning of a verdict, such as `{-`, or split them. So F and C are
sums over the tokens from that with the last character before the verdict to that with the first character of it. A
token that decides nothing yet, such as `{` or a space, is followed where the judge wrote it. Where it did not, the
probability of the token counts against the verdict: beside the token `{-`, the token `{` means that another character
than - follows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from fapo.inference.token_choices import bare
from fapo.judge.template import Template
from fapo.types import TokenChoice

FLAGS = {
    "locate": {"-": False} | dict.fromkeys("+0123456789", True),
    "yes_no": dict.fromkeys("nNfF", False) | dict.fromkeys("yYtT", True),
}
"""Kind of template -> first character of a verdict -> whether the verdict flags."""


def flag_probability(critique: str, tokens: Sequence[TokenChoice], template: Template, flawed: bool) -> float | None:
    """Return the probability of a flaw by the log probabilities of a verdict's tokens.

    It is a probability under the distribution of the log probabilities. A model in this process, llama.cpp and vLLM (by
    default) give those at temperature 1, SGLang those at the sampling temperature.

    Args:
        critique: Critique with a verdict.
        tokens: Tokens from the one with the last character before the verdict on, with alternatives.
        template: Prompt that the critique answers.
        flawed: Whether the verdict flags.

    Returns:
        The probability, from 0 to 1; None if the tokens are not those of the verdict.
    """
    verdict, flags = template.written_verdict(critique), FLAGS[template.kind]
    written = "".join(bare(token.text) for token in tokens)
    place = written.find(template.before_verdict[-1] + bare(verdict or "")) + 1
    if not verdict or not place or flags.get(written[place]) is not flawed:
        return None
    mass, reached, end = {True: 0.0, False: 0.0}, 1.0, 0
    for token in tokens:
        begin, end = end, end + len(bare(token.text))
        prefix, taken = written[begin:place], 0.0
        for text, logprob in token.alternatives:
            probability, other = reached * math.exp(logprob), bare(text)
            if other.startswith(prefix) and other != prefix:
                if (first := other[len(prefix)]) in flags:
                    mass[flags[first]] += probability
            elif text == token.text:
                taken += probability
            elif prefix.startswith(other) and (other or not prefix):
                mass[not flawed] += probability
        if end > place:
            break
        reached = taken
    total = mass[True] + mass[False]
    return mass[True] / total if total else None
