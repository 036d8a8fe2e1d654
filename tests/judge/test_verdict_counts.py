"""Counts of verdicts: the rate of those that are missing, the commonest reason, an example, and what to do."""

from __future__ import annotations

import logging

import pytest

from fapo.errors import JudgeDownError
from fapo.judge.verdict_counts import MIN_SAME, MIN_VERDICTS, VerdictCounts
from fapo.judge.verdicts import BLANK, CUT_OFF, NO_ANSWER, NO_STEP, OUT_OF_RANGE, parse_verdict
from fapo.types import Verdict

SOUND = Verdict.from_step(None, "\\boxed{-1}")


def unparsable(reason: str, critique: str = "a long critique " * 40) -> Verdict:
    return Verdict("unparsable", critique=critique, reason=reason)


def failed(reason: str) -> Verdict:
    return Verdict("failed", reason=reason)


def counted(*verdicts: Verdict, min_same: int = MIN_SAME) -> VerdictCounts:
    return VerdictCounts.of(verdicts, min_same)


@pytest.mark.parametrize(
    ("verdict", "remedy", "not_remedy"),
    [
        (unparsable(CUT_OFF), "raise the length limit", "prompt of its training"),
        (unparsable(CUT_OFF, ""), "thinking model", "asks for less"),
        (unparsable(NO_STEP, "-1"), "prompt of its training", "length limit"),
        (unparsable(NO_STEP, " \n"), "reasoning parser", "check-judge"),
        (unparsable(NO_ANSWER, "No."), "use locate", "length limit"),
        (unparsable(OUT_OF_RANGE), "its own answer to the problem", "length limit"),
        (unparsable(BLANK, ""), "these solutions are empty", "length limit"),
        (failed("HTTP 401: wrong key"), "FAPO_API_KEY", "--model"),
        (failed("HTTP 404: no such model"), "--model", "FAPO_API_KEY"),
        (failed("HTTP 429: quota (given up after 5 tries)"), "quota", "FAPO_API_KEY"),
        (failed("HTTP 400: maximum context length is 4096 tokens"), "context", "quota"),
        (failed("no connection to 127.0.0.1:9: refused"), "no server listens", "quota"),
        (failed("no answer within 600 s"), "too slow", "quota"),
        (failed("no answer within the deadline of 4 s; before that: HTTP 500: boom"), "its log", "too slow"),
        (failed("no answer within the deadline of 4 s; before that: no answer within 2 s"), "too slow", "its log"),
        (failed("HTTP 418: teapot"), "its log", "quota"),
    ],
    ids=lambda value: f"{value.reason[:20]}-{len(value.critique)}" if isinstance(value, Verdict) else None,
)
def test_the_remedy_fits_the_reason(verdict: Verdict, remedy: str, not_remedy: str) -> None:
    text = "\n".join(counted(verdict).notes())
    assert verdict.reason[:30] in text
    assert remedy in text
    assert not_remedy not in text


def test_the_note_counts_and_shows_the_commonest_reason() -> None:
    bare = [parse_verdict("-1", 3), parse_verdict("-1", 3)]
    notes = counted(SOUND, unparsable(CUT_OFF), *bare).notes()
    assert notes[0] == f"no verdict in 3 of 4 judgements (75%); 2 times: {NO_STEP}"
    assert notes[1] == "the judge wrote, for example: '-1'"
    assert len(notes) == 3


@pytest.mark.parametrize(
    ("verdict", "num", "advised"),
    [(unparsable(NO_STEP), 3, False), (unparsable(NO_STEP), 52, True), (failed("HTTP 500: boom"), 3, True)],
)
def test_little_is_no_reason_for_another_prompt(verdict: Verdict, num: int, advised: bool) -> None:
    notes = counted(*[SOUND, Verdict.from_step(0)] * ((1024 - num) // 2), SOUND, *[verdict] * num).notes()
    assert notes[0].startswith(f"no verdict in {num} of ")
    assert ("what to try" in "".join(notes)) is advised


def test_an_example_is_short_and_does_not_steer_a_terminal() -> None:
    example = counted(unparsable(NO_STEP, "\x1b[2J\n\u202e[red]" + "x" * 1000)).notes()[1]
    assert example.isprintable()
    assert len(example) < 300
    assert example.endswith("...")


@pytest.mark.parametrize(
    ("num_sound", "num_missing", "mostly"),
    [(0, 7, False), (0, 8, True), (4, 4, False), (4, 5, True), (100, 100, False), (1, 6, False)],
)
def test_more_than_half_of_at_least_eight_are_mostly_missing(num_sound: int, num_missing: int, mostly: bool) -> None:
    assert counted(*[SOUND] * num_sound, *[unparsable(NO_STEP)] * num_missing).mostly_missing is mostly


def test_nothing_is_said_about_verdicts_that_are_there_and_differ() -> None:
    assert VerdictCounts().notes() == []
    assert counted(*[SOUND] * 100, Verdict.from_step(0)).notes() == []


@pytest.mark.parametrize(
    ("verdict", "num", "min_same", "text"),
    [
        (Verdict.from_step(1), MIN_VERDICTS, MIN_SAME, '"step 1 is wrong"'),
        (Verdict.from_step(1), MIN_VERDICTS - 1, MIN_SAME, ""),
        (Verdict("ok", flawed=True), MIN_VERDICTS, MIN_SAME, '"flawed"'),
        (SOUND, MIN_SAME - 1, MIN_SAME, ""),
        (SOUND, MIN_SAME, MIN_SAME, '"no error found"'),
        (SOUND, MIN_VERDICTS, MIN_VERDICTS, '"no error found"'),
    ],
)
def test_a_judge_that_always_says_the_same_is_remarked_on(verdict: Verdict, num: int, min_same: int, text: str) -> None:
    counts = counted(*[verdict] * num, min_same=min_same)
    assert counts.all_same is bool(text)
    assert (f"all {num} verdicts are the same, {text}" in "".join(counts.notes())) is bool(text)


def test_a_judge_that_flags_everything_is_remarked_on_whatever_steps_it_names() -> None:
    counts = counted(*[Verdict.from_step(1)] * 6, *[Verdict.from_step(2)] * 3)
    assert counts.all_same
    assert counts.notes()[0].startswith('all 9 verdicts are the same, "flawed"')


def test_errors_that_differ_in_numbers_are_one_reason() -> None:
    counts = counted(*(failed(f"HTTP 418: request {i} of {i * i}") for i in range(500)))
    assert len(counts.missing) == len(counts.examples) < 5


def test_a_judge_that_only_fails_is_down_however_few_the_requests() -> None:
    with pytest.raises(JudgeDownError, match=r"all 2 requests failed: HTTP 404: nope.*GET /v1/models"):
        counted(*[failed("HTTP 404: nope")] * 2).require_answers()
    counted(failed("HTTP 404: nope"), SOUND).require_answers()
    counted(failed("HTTP 404: nope"), unparsable(NO_STEP)).require_answers()
    VerdictCounts().require_answers()


def test_a_run_is_warned_once(caplog: pytest.LogCaptureFixture) -> None:
    counts = VerdictCounts()
    with caplog.at_level(logging.WARNING, "fapo"):
        counts.watch([unparsable(NO_STEP, "-1")] * 7)
        assert not caplog.records
        counts.watch([unparsable(NO_STEP, "-1")] * 7)
        assert "no verdict in 14 of 14 judgements (100%)" in caplog.text
        num = len(caplog.records)
        counts.watch([unparsable(NO_STEP, "-1")] * 7)
    assert len(caplog.records) == num == 3
