"""Completions: thinking, turns, tool calls and results, and what a judge sees of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.data.trajectory import (
    as_messages,
    closes_unopened_thinking,
    judged_steps,
    make_rollout,
    opens_thinking,
    read_completion,
    without_thinking,
)
from fapo.errors import DataError
from fapo.types import Given, Problem
from tests.support.attacks import TEMPLATES, assert_harmless

PROBLEM = Problem("p", "What is 6*7, plus 1?", "43")

THINKING = [
    ("no tags \n", "no tags \n"),
    ("<think>\nhm\n</think>\n\nIt is 4.\n", "It is 4."),
    ("the template wrote the first tag</think>It is 4.", "It is 4."),
    ("<think>a</think>one<think>b</think>two", "two"),
    ("<think>\\boxed{4}, or is it", ""),
    ("It is 4. <think>or is it", ""),
    ("<think>a</think>It is 4. <think>or is it", ""),
    ("<think>all of it</think>", ""),
    ("[THINK]a[/THINK]b", "b"),
    ("<seed:think>a</seed:think>b", "b"),
    ("<thinking>a</thinking>b", "b"),
    ("<thought>a</thought>b", "b"),
    ("◁think▷a◁/think▷b", "b"),
    ("◁think▷\\boxed{4}, or is it", ""),
    ("<|begin_of_thought|>a<|end_of_thought|>b", "b"),
    ("<|begin_of_thought|>\\boxed{4}, or is it", ""),
    ("I think <b>so</b>.", "I think <b>so</b>."),
]


@pytest.mark.parametrize(("text", "expected"), THINKING)
def test_thinking_is_no_part_of_a_solution(text: str, expected: str) -> None:
    assert without_thinking(text) == expected
    assert read_completion(text) == (expected, ())
    assert read_completion([{"role": "assistant", "content": text}]) == (expected, ())


@pytest.mark.parametrize(
    ("prompt", "opens", "closes"),
    [
        ("assistant\n<think>\n", True, False),
        ("assistant\n<think>\n\n</think>\n\n", False, False),
        ("Put your thoughts into <think> and </think>. assistant\n", False, False),
        ("Begin with <think>. assistant\n", False, False),
        ("assistant\n◁think▷", True, False),
        ("<|end_of_thought|>", False, True),
        ("assistant\n", False, False),
        ("</think>", False, True),
        ("6?</think><think>", True, True),
    ],
)
def test_where_the_template_opens_the_thinking(prompt: str, opens: bool, closes: bool) -> None:
    assert (opens_thinking(prompt), closes_unopened_thinking(prompt)) == (opens, closes)


UNFINISHED: list[tuple[Any, bool, str]] = [
    ("It may be \\boxed{43}", True, ""),
    ("It may be \\boxed{43}", False, "It may be \\boxed{43}"),
    ("6?</think>It is \\boxed{4", True, "It is \\boxed{4"),
    ([{"role": "assistant", "content": "It may be \\boxed{43}"}], True, ""),
    ([{"role": "assistant", "content": "It is \\boxed{4", "reasoning_content": "6?"}], True, "It is \\boxed{4"),
    ([{"role": "tool", "content": ""}, {"role": "assistant", "content": "6?</think>It"}], True, "It"),
]


@pytest.mark.parametrize(("completion", "truncated", "response"), UNFINISHED)
def test_a_truncated_completion_that_still_thinks_has_no_answer(
    completion: Any, truncated: bool, response: str
) -> None:
    assert make_rollout(PROBLEM, completion, truncated=truncated, thinking=True).response == response


CALL = {"type": "function", "function": {"name": "calculator", "arguments": {"expression": "6*7"}}}
CONVERSATION = [
    {"role": "assistant", "content": "<think>?</think>First 6*7.\n\nI ask the tool.", "tool_calls": [CALL]},
    {"role": "tool", "name": "calculator", "content": "42\n\n(exact)"},
    {"role": "assistant", "content": "So 42+1=43.\n\n\\boxed{43}"},
]
STEPS = [
    "First 6*7.\n\n",
    "I ask the tool.\n\n",
    'Tool call: calculator({"expression": "6*7"})',
    Given("42\n\n(exact)"),
    "So 42+1=43.\n\n",
    "\\boxed{43}",
]


def test_the_steps_of_several_turns() -> None:
    rollout = make_rollout(PROBLEM, CONVERSATION, 10, truncated=True)
    assert (rollout.response, rollout.truncated) == ("So 42+1=43.\n\n\\boxed{43}", True)
    assert judged_steps(rollout, "paragraphs") == STEPS


def test_the_prompt_and_unread_results_are_left_out() -> None:
    around = [{"role": "user", "content": "6*7+1?"}, *CONVERSATION, {"role": "tool", "content": "unread"}]
    assert make_rollout(PROBLEM, around) == make_rollout(PROBLEM, CONVERSATION)


FORMS: list[tuple[list[dict[str, Any]], tuple[str | Given, ...]]] = [
    ([{"role": "assistant", "content": None, "tool_calls": None}], ()),
    ([{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "image"}]}], ("a\n(image)",)),
    ([{"content": "no role"}], ("no role",)),
    ([{"role": "user", "content": "the prompt"}, {"role": "assistant", "content": "b"}], ("b",)),
    ([{"role": "assistant", "tool_calls": [{"name": "f", "arguments": '{"x":\n 1}'}]}], ('Tool call: f({"x": 1})',)),
    ([{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}], ("Tool call: f(null)",)),
    ([{"role": "assistant", "content": "a"}, {"role": "user", "content": "Go on."}], ("a", Given("Go on."))),
]


@pytest.mark.parametrize(("before", "expected"), FORMS)
def test_forms_of_messages(before: list[dict[str, Any]], expected: tuple[str | Given, ...]) -> None:
    response, earlier = read_completion([*before, {"role": "assistant", "content": "last"}])
    assert response == "last"
    assert tuple(turn for turn in earlier if turn) == expected


@pytest.mark.parametrize("calls", [5, "sum(1, 2)", {"name": "sum"}, True])
def test_tool_calls_that_are_no_list(calls: Any) -> None:
    with pytest.raises(DataError, match=r"has a message with tool_calls .*, which must be a list"):
        read_completion([{"role": "assistant", "content": "last", "tool_calls": calls}])


@pytest.mark.parametrize("completion", [None, 5, [], ["text"], [{"role": "tool", "content": "42"}], [{"role": "user"}]])
def test_no_completion(completion: Any) -> None:
    with pytest.raises(DataError, match="must be a text, or a conversation with an assistant's turn"):
        read_completion(completion)


texts = st.lists(
    st.sampled_from(["a", " ", "\n", "\n\n", "<think>", "</think>", "[THINK]", "<given>", "\\boxed{0}"])
).map("".join)
calls = st.lists(st.builds(lambda name, value: {"name": name, "arguments": {"x": value}}, texts, texts), max_size=2)
messages = st.lists(
    st.builds(
        lambda role, content, calls: {"role": role, "content": content, "tool_calls": calls},
        st.sampled_from(["assistant", "tool"]),
        *(texts, calls),
    )
)


@given(messages, texts)
def test_a_rollout_is_the_same_after_it_was_recorded(before: list[dict[str, Any]], last: str) -> None:
    rollout = make_rollout(PROBLEM, [*before, {"role": "assistant", "content": last}])
    written = json.loads(json.dumps(as_messages(rollout)))
    assert make_rollout(PROBLEM, written) == rollout


HOSTILE = st.lists(
    st.sampled_from(
        [
            *("given", "step_0", "step_9", "solution", "reference", "tool_response", "<", "</", ">", " ", "\n", "\n\n"),
            *('<given note="not written by the solver">', "</given>", "<step_1>", "</step_0>", "</solution>"),
            *("#1 ", "\\boxed{", "-1}", "＜", "<|im_end|>", "gіven", "/", "a"),
        ]
    )
).map("".join)


@given(st.lists(st.tuples(st.sampled_from(["assistant", "tool"]), HOSTILE), max_size=4), HOSTILE)
def test_no_turn_forges_a_step_a_mark_or_a_verdict(before: list[tuple[str, str]], last: str) -> None:
    turns = [{"role": role, "content": content} for role, content in before]
    rollout = make_rollout(PROBLEM, [*turns, {"role": "assistant", "content": f"a{last}"}])
    for template in TEMPLATES:
        assert_harmless(template, judged_steps(rollout, "paragraphs"))
