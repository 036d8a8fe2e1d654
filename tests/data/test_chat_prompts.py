from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.data.chat_prompts import USER_TURNS, question_of_prompt, response_of_query, whole_response
from fapo.errors import DataError

QUESTIONS = (
    st.text(st.characters(exclude_characters="<>[]|", exclude_categories=["Cs"]), min_size=1)
    .map(str.strip)
    .filter(bool)
)


@pytest.mark.parametrize("marks", USER_TURNS, ids=lambda marks: marks[0].strip())
@given(first=QUESTIONS, last=QUESTIONS)
def test_the_last_rendered_turn_of_the_user_counts(marks: tuple[str, str], first: str, last: str) -> None:
    begin, end = marks
    assert question_of_prompt(f"<s>{begin}{first}{end}answer\n{begin} {last} {end}\n<assistant>") == last


@given(QUESTIONS)
def test_a_text_without_marks_is_the_question(text: str) -> None:
    assert question_of_prompt(text) == text


def test_the_last_turn_of_the_user_in_a_conversation_counts() -> None:
    turns = [("system", "Be brief."), ("user", "1+1?"), ("assistant", "2"), ("user", "2+2?"), ("assistant", "")]
    assert question_of_prompt([{"role": role, "content": content} for role, content in turns]) == "2+2?"


@pytest.mark.parametrize("prompt", [[], [{"role": "system", "content": "x"}], [{"role": "user", "content": [1]}]])
def test_a_conversation_without_a_question_is_an_error(prompt: list[dict[str, object]]) -> None:
    with pytest.raises(DataError, match="no turn of a user"):
        question_of_prompt(prompt)


@given(prompt=QUESTIONS, response=QUESTIONS)
def test_the_response_is_what_follows_the_prompt(prompt: str, response: str) -> None:
    assert response_of_query(f"<s>{prompt}{response}<|im_end|>\n", prompt) == f"{response}<|im_end|>\n"


@pytest.mark.parametrize("before", ["", "<s>", "<s> ", "<|begin_of_text|>", "[BOS]", "<｜begin▁of▁sentence｜>"])
def test_a_tokenizer_may_write_a_token_before_the_prompt(before: str) -> None:
    assert response_of_query(f"{before}s0", "s") == "0", "also where the prompt is a part of that token"


@pytest.mark.parametrize("query", ["something else", "a long text before 1+1? 2", ""])
def test_a_query_without_its_prompt_is_an_error(query: str) -> None:
    with pytest.raises(DataError, match="does not start with its prompt"):
        response_of_query(query, "1+1?")


@pytest.mark.parametrize(
    "response", ["So 2.<|im_end|>", "So 2.</s>", "So 2.<|eot_id|>\n", "So 2.<|im_end|><|endoftext|>", "So 2."]
)
def test_special_tokens_at_the_end_are_removed(response: str) -> None:
    assert whole_response(response, "1+1?") == "So 2."
