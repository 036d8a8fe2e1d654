"""Properties of the parsers that hold for any text, on attacks and on random mixtures; `make fuzz` tests more."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.attacks import ATTACKS
from tests.support.fuzz import CHECKS, WORDS

TEXTS = st.lists(st.sampled_from(WORDS) | st.text(max_size=3), max_size=20).map("".join)


@pytest.mark.parametrize("one", CHECKS, ids=lambda one: one.__name__)
def test_it_holds_of_the_attacks(one) -> None:
    texts = [attack.response("1+1=3\n3+2=5", "4") for attack in ATTACKS.values() if not attack.pad[1]]
    for text in texts:
        one(text)
    assert len(texts) > 50


@pytest.mark.parametrize("one", CHECKS, ids=lambda one: one.__name__)
@settings(max_examples=60)
@given(text=TEXTS)
def test_it_holds_of_mixtures(one, text: str) -> None:
    assert one(text) is None
