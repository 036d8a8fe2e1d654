"""Parsing verdicts, voting on them, and the row in which a verdict is stored."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.judge.verdicts import majority, parse_verdict, parse_yes_no, verdict_from_row, verdict_row
from fapo.types import Verdict

OK = [
    (r"\boxed{-1}", None),
    (r"\boxed{0}", 0),
    (r"\boxed{2}", 2),
    (r"\boxed{+1}", 1),
    (r"\boxed{ -1 }", None),
    ("\\boxed{\n$1$ }", 1),
    (r"\boxed{$-1$}", None),
    (r"\boxed{001}", 1),
    (r"$\boxed{1}$.", 1),
    (r"Step 0 ends in \boxed{14}. Fine. So \boxed{1} it is", 1),
    (r"\boxed{x} but then \boxed{-1}", None),
    (r"\boxed{\boxed{1}}", 1),
    (r"\boxed{1}} and \boxed {2}", 1),
    (r"\fbox{1} \boxed{0}", 0),
]


UNPARSABLE = [
    "",
    "no box at all, step 1",
    r"\boxed{3}",
    r"\boxed{-2}",
    r"\boxed{99999999999999999999}",
    r"\boxed{" + "1" * 5000 + "}",
    r"\boxed{}",
    r"\boxed{ }",
    r"\boxed{1",
    r"\boxed{1} \boxed{",
    r"\boxed{1} \boxed{none}",
    r"\boxed{1.0}",
    r"\boxed{1, 2}",
    r"\boxed{0x1}",
    r"\boxed{1_0}",
    r"\boxed{--1}",
    r"\boxed{- 1}",
    r"\boxed{−1}",
    r"\boxed{١}",
    r"\boxed{\text{1}}",
    r"\boxed{1+0}",
    r"\boxed{len([1])}",
    r"\boxed {1}",
    r"boxed{1}",
    r"\boxed{True}",
]


REASONS = [
    ("", "no boxed step"),
    (r"\boxed{1.0}", "no boxed step"),
    (r"\boxed{-2}", "step out of range"),
    (r"\boxed{" + "1" * 5000 + "}", "step out of range"),
    (r"<think>so \boxed{0} ... wait", "no boxed step"),
    (r"<think>\boxed{0}</think> I cannot say.", "no boxed step"),
    (r"\boxed{0}</think>", "no boxed step"),
    (r"<think>a</think> \boxed{0} <think> or not?", "no boxed step"),
    (r"[THINK]\boxed{0}", "no boxed step"),
    (r"<seed:think>\boxed{0}</seed:think>", "no boxed step"),
    (r"<think>\boxed{0}</think> \boxed{9}", "step out of range"),
]


@pytest.mark.parametrize(("text", "reason"), REASONS, ids=lambda text: text[:30])
def test_the_reasons_are_few_so_that_they_can_be_counted(text: str, reason: str) -> None:
    assert parse_verdict(text, 3).reason == reason


THOUGHT = [
    r"<think>\boxed{0}? No.</think>\boxed{%s}",
    r"<think>a</think> b <think>\boxed{9}</think> \boxed{%s}",
    r"The template opened the thinking. \boxed{0}</think> \boxed{%s}",
    r"[THINK]\boxed{0}[/THINK]\boxed{%s}",
    r"<thinking>\boxed{0}</thinking>\boxed{%s}",
    r"I think> \boxed{%s}",
]


@pytest.mark.parametrize("text", THOUGHT)
def test_only_what_follows_the_thinking_counts(text: str) -> None:
    assert parse_verdict(text % 1, 3) == Verdict.from_step(1, text % 1)
    assert parse_yes_no(text % "no") == Verdict("ok", flawed=False, critique=text % "no")
    assert parse_yes_no(text % "perhaps").reason == "no boxed yes or no"


@pytest.mark.parametrize(("text", "error_step"), OK)
def test_an_index_in_the_last_box_is_a_verdict(text: str, error_step: int | None) -> None:
    assert parse_verdict(text, 3) == Verdict.from_step(error_step, critique=text)


@pytest.mark.parametrize("text", UNPARSABLE, ids=lambda text: text[:24])
def test_everything_else_is_no_verdict(text: str) -> None:
    verdict = parse_verdict(text, 3)
    assert (verdict.status, verdict.error_step, verdict.flawed, verdict.critique) == ("unparsable", None, None, text)
    assert verdict.reason
    assert len(verdict.reason) < 120


YES_NO = [
    (r"\boxed{yes}", True),
    (r"\boxed{no}", False),
    (r"\boxed{no} ... \boxed{ Yes }", True),
    (r"\boxed{$NO$}", False),
    (r"\boxed{yes} \boxed{", None),
    (r"\boxed{maybe}", None),
    (r"\boxed{yes, no}", None),
    (r"\boxed{-1}", None),
    ("yes", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "flawed"), YES_NO)
def test_yes_no(text: str, flawed: bool | None) -> None:
    verdict = parse_yes_no(text)
    assert verdict.flawed is flawed
    assert verdict.critique == text
    assert (verdict.status == "unparsable") == bool(verdict.reason) == (flawed is None)
    assert verdict.error_step is None


PIECES = st.sampled_from(
    [
        "<think>",
        "</think>",
        "\\boxed{",
        "\\boxed",
        "{",
        "}",
        "-1",
        "0",
        "1",
        "7",
        "$",
        " ",
        "\n",
        "yes",
        "no",
        "\\text{",
    ]
)
CRITIQUES = st.lists(PIECES | st.text(max_size=5), max_size=30).map("".join)


@given(CRITIQUES, st.integers(0, 5))
def test_parsing_never_raises_and_never_leaves_the_solution(text: str, num_steps: int) -> None:
    verdict = parse_verdict(text, num_steps)
    assert verdict.critique == text
    assert verdict.status in ("ok", "unparsable")
    assert verdict.error_step is None or (verdict.status == "ok" and 0 <= verdict.error_step < num_steps)
    assert parse_yes_no(text).error_step is None


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{" * 10_000,
        r"\boxed{" * 10_000 + "1" + "}" * 10_000,
        r"\boxed{" + "{" * 500_000,
        r"\boxed{" + " $" * 500_000,
        r"\boxed{" + "1" * 500_000 + "}",
        "\\boxed" * 100_000,
        "<think>\\boxed{1}</think>" * 50_000,
        "<" + "a" * 1_000_000,
        "<a:" * 300_000,
    ],
    ids=lambda text: text[:12] + text[-12:],
)
def test_hostile_critiques_are_read_in_linear_time(text: str) -> None:
    start = time.process_time()
    parse_verdict(text, 3)
    parse_yes_no(text)
    assert time.process_time() - start < 5


def verdict(vote: int | str | None) -> Verdict:
    return Verdict("failed", reason=vote) if isinstance(vote, str) else Verdict.from_step(vote)


@pytest.mark.parametrize(
    ("votes", "outcome"),
    [
        ([3], 3),
        ([None, None, 1], None),
        ([1, 2, 2, None], 2),
        ([5, 1, 5, 1], 5),
        ([5, 1], 5),
        ([None, None, None, 0, 1, 2, 3, 3], None),
        ([None, 3, 3], 3),
        ([None, 0], None),
        ([0, 1, None, None], None),
        ([0, None], 0),
        (["down", 4, "down"], 4),
        (["down", None, 4, 4], 4),
        (["down", "late"], "down"),
    ],
)
def test_majority(votes: list[int | str | None], outcome: int | str | None) -> None:
    assert majority([verdict(vote) for vote in votes]) == verdict(outcome)


def test_majority_keeps_the_critique_of_the_first_that_agrees() -> None:
    votes = [Verdict.from_step(None, "a"), Verdict.from_step(1, "b"), Verdict.from_step(1, "c")]
    assert majority(votes) is votes[1]


def test_flagged_without_a_step_is_an_answer_of_its_own() -> None:
    flagged = Verdict("ok", flawed=True)
    assert majority([verdict(3), flagged, flagged]) == flagged
    assert majority([verdict(3), flagged, verdict(3)]) == verdict(3)


VERDICTS = [
    Verdict.from_step(None, "fine", 3),
    Verdict.from_step(0, "the first", 3),
    Verdict("ok", flawed=True, critique=r"\boxed{yes}"),
    Verdict("ok", flawed=True, reason="flagged unread: 1 words outside the box, min_words is 3"),
    Verdict("unparsable", critique="hm", reason="no boxed step"),
    Verdict("failed", reason="HTTP 500", num_tokens=1),
]


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_row_is_read_back(verdict: Verdict) -> None:
    assert verdict_from_row(verdict_row(verdict)) == verdict


def test_no_verdict_is_a_row_with_the_same_columns() -> None:
    assert list(verdict_row(None)) == list(verdict_row(VERDICTS[0]))
    assert verdict_from_row(verdict_row(None)) is None
