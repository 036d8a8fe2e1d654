"""Tokens with alternatives: which of them are kept, and what is read of the answer of a server."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.inference.token_choices import LEAST, NUM_TOKENS, bare, kept_tokens, served_choices, token_choice
from fapo.types import TokenChoice
from tests.support.logprobs import entry

KEPT: dict[str, tuple[list[str], list[str]]] = {
    "a token of its own": (["so", " ", "\\boxed{", "-", "1", "}"], ["\\boxed{", "-", "1", "}"]),
    "a token with the start of the answer": (["\\", "boxed", "{-", "1", "}"], ["{-", "1", "}"]),
    "the last occurrence": (["\\boxed{", "2}", " or", " \\boxed", "{", "3", "}"], ["{", "3", "}"]),
    "without the white space that a server leaves out": (["\\bo", " xed", "{", "1}"], ["{", "1}"]),
    "not the rest of a long answer": (["\\boxed{", *"1}, and that is all"], ["\\boxed{", *"1}, and"]),
    "nothing without the text": (["no", " box"], []),
    "nothing without a token": ([], []),
}


@pytest.mark.parametrize(("texts", "kept"), KEPT.values(), ids=KEPT)
def test_tokens_are_kept_from_the_end_of_a_text_on(texts: list[str], kept: list[str]) -> None:
    assert [texts[index] for index in kept_tokens(texts, "\\boxed{")] == kept


@given(st.text(alphabet="ab{ $", max_size=30), st.lists(st.integers(0, 30), max_size=10))
def test_the_first_token_has_the_last_character_of_the_text(text: str, cuts: list[int]) -> None:
    ends = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    texts = [text[start:end] for start, end in pairwise(ends)]
    kept = kept_tokens(texts, "a{")
    place = bare(text).rfind("a{") + 2
    assert bool(kept) == (place > 1) and len(kept) <= NUM_TOKENS
    if kept:
        before = len(bare("".join(texts[: kept[0]])))
        assert before < place <= before + len(bare(texts[kept[0]]))


def test_the_token_itself_is_among_its_alternatives_once() -> None:
    assert token_choice(("a", -0.5), ("a", -0.5), ("b", -1.0)).alternatives == (("a", -0.5), ("b", -1.0))
    assert token_choice(("c", -7.0), ("a", -0.5), ("b", -1.0)).alternatives == (("c", -7.0), ("a", -0.5), ("b", -1.0))
    assert token_choice(("a", -0.1234567)) == TokenChoice("a", (("a", -0.12346),))


def content(**changed: Any) -> dict[str, Any]:
    """Return the log probabilities of two tokens, `{` and `1`; `changed` replaces fields of the first."""
    first = entry("{", -0.1) | {"top_logprobs": [entry("{", -0.1), entry("{-", -2.0)]}
    return {"content": [first | changed, entry("1", 0.0) | {"top_logprobs": [entry("1", 0.0)]}]}


def test_an_answer_is_read() -> None:
    found = served_choices(content(), "{")
    assert found == (TokenChoice("{", (("{", -0.1), ("{-", -2.0))), TokenChoice("1", (("1", 0.0),)))
    assert served_choices(content(), "[") == ()
    assert served_choices(content(bytes=None), "{") == found
    without = served_choices(content(top_logprobs=None), "{")
    assert without and without[0].alternatives == (("{", -0.1),)


UNREADABLE: dict[str, Any] = {
    "none": None,
    "of another endpoint": {"tokens": ["{"], "token_logprobs": [-0.1]},
    "no content": {"content": None},
    "empty": {"content": []},
    "a text": {"content": "{1"},
    "an entry that is no object": {"content": ["{", "1"]},
    "no token": content(token=None),
    "NaN": content(logprob=math.nan),
    "above 0": content(logprob=0.5),
    "a text for a number": content(logprob="-0.1"),
    "true for a number": content(logprob=True),
    "no number": content(logprob=None),
    "an alternative without a number": content(top_logprobs=[{"token": "{"}]),
    "an alternative above 0": content(top_logprobs=[entry("{-", 700.0)]),
    "an alternative that is no object": content(top_logprobs=[-0.1]),
}


@pytest.mark.parametrize("logprobs", UNREADABLE.values(), ids=UNREADABLE)
def test_log_probabilities_that_cannot_be_read_are_none(logprobs: Any) -> None:
    assert served_choices(logprobs, "{") is None


NUMBERS = st.one_of(st.floats(), st.integers(-(10**400), 10), st.booleans(), st.none(), st.text(max_size=3))
TOKENS = st.one_of(st.sampled_from(["{", "{-", "1"]), st.text(max_size=3), st.none())
OTHERS = st.lists(st.fixed_dictionaries({"token": TOKENS, "logprob": NUMBERS}), max_size=3)
ENTRIES = st.fixed_dictionaries(
    {"token": TOKENS, "logprob": NUMBERS}, optional={"top_logprobs": st.one_of(st.none(), OTHERS)}
)


@given(st.one_of(st.none(), st.lists(ENTRIES), st.dictionaries(st.text(), NUMBERS)))
def test_whatever_a_server_sends_no_value_is_beyond_the_range(entries: Any) -> None:
    for choice in served_choices({"content": entries}, "{") or ():
        assert all(LEAST <= logprob <= 0 for _, logprob in choice.alternatives)
        assert choice.text in [text for text, _ in choice.alternatives]
