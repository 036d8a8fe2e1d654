"""The oracle: it finds the first wrong line of any solution and the kind of flaw."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.base_models.writers import PERFECT, Habits, trace
from fapo.data.final_answers import extract
from fapo.data.miniature.oracle import examine, ground_truth, is_answer_correct
from fapo.data.miniature.world import Task, tasks
from fapo.data.steps import split_steps
from fapo.types import GroundTruth, Rollout
from tests.support.miniature import EXAMINED_LEAPS, EXAMINED_RESPONSES, TASK, TASKS

BAD_HABITS = st.builds(Habits, *[st.sampled_from([0.0, 0.1, 0.5, 0.9])] * 7)
"""Strategy for writers with every kind of mistake."""


@pytest.mark.parametrize(("response", "correct", "step", "flaw"), EXAMINED_RESPONSES.values(), ids=EXAMINED_RESPONSES)
def test_the_oracle_names_the_first_wrong_line_and_its_flaw(
    response: str, correct: bool, step: int | None, flaw: str | None
) -> None:
    found = examine(TASK, response)
    assert (is_answer_correct(TASK, response), found.error_step, found.flaw) == (correct, step, flaw)


@pytest.mark.parametrize("name", EXAMINED_RESPONSES)
def test_the_wrong_line_is_one_of_the_steps_a_judge_sees(name: str) -> None:
    response, _, step, _ = EXAMINED_RESPONSES[name]
    assert step is None or step < max(len(split_steps(response, "lines")), 1)


@given(TASKS)
def test_the_right_lines_are_accepted(task: Task) -> None:
    response = "\n".join(task.lines)
    assert (is_answer_correct(task, response), examine(task, response)) == (True, GroundTruth(None))


@given(TASKS, st.data())
def test_any_changed_number_is_found_where_it_stands(task: Task, data: st.DataObject) -> None:
    lines = list(task.lines)
    at = data.draw(st.integers(0, len(lines) - 1))
    number = data.draw(st.sampled_from(list(re.finditer(r"\d+|(?<=\{)[A-D](?=\})", lines[at]))))
    changed = data.draw(st.integers(0, 999).map(str).filter(lambda n: n != number[0]))
    lines[at] = lines[at][: number.start()] + changed + lines[at][number.end() :]
    assert examine(task, "\n".join(lines)).error_step == at


@given(TASKS, st.one_of(st.text(), st.text("0123456789+-*=\n\\boxed{} ", max_size=60)))
def test_the_oracle_takes_any_text(task: Task, response: str) -> None:
    found = examine(task, response)
    assert (found.error_step is None) == (found.flaw is None)
    assert found.error_step is None or 0 <= found.error_step < max(len(split_steps(response, "lines")), 1)


@given(TASKS, BAD_HABITS, st.integers(0, 10**6))
def test_oracle_and_answer_checker_agree(task: Task, habits: Habits, seed: int) -> None:
    response = trace(random.Random(seed), task, habits)
    assert is_answer_correct(task, response) == (extract(response) == task.problem().reference)


# --- lines may be left out --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("response", "step", "flaw"), EXAMINED_LEAPS.values(), ids=EXAMINED_LEAPS)
def test_the_oracle_reads_the_lines_that_are_there(response: str, step: int | None, flaw: str | None) -> None:
    assert examine(TASK, response, leaps=True) == GroundTruth(step, flaw)
    problem = TASK.problem("miniature-leaps-validation")
    assert ground_truth(Rollout(problem, response)) == GroundTruth(step, flaw), "the set says what may be left out"


@given(TASKS, st.data())
def test_any_of_the_right_lines_may_be_left_out_but_the_box(task: Task, data: st.DataObject) -> None:
    *lines, box = task.lines
    kept = [line for line in lines if data.draw(st.booleans())]
    assert examine(task, "\n".join([*kept, box]), leaps=True) == GroundTruth(None)


@given(TASKS, BAD_HABITS, st.integers(0, 10**6))
def test_leaps_only_forgive(task: Task, habits: Habits, seed: int) -> None:
    """A solution without a flaw has none with leaps either, and the first one comes at the same line or later."""
    response = trace(random.Random(seed), task, habits)
    strict, lenient = examine(task, response).error_step, examine(task, response, leaps=True).error_step
    assert lenient is None or (strict is not None and strict <= lenient)


@given(TASKS, st.one_of(st.text(), st.text("0123456789+-*=\n\\boxed{} ", max_size=60)), st.booleans(), st.booleans())
def test_the_oracle_takes_any_text_with_leaps_and_repeats(
    task: Task, response: str, leaps: bool, repeats: bool
) -> None:
    found = examine(task, response, leaps=leaps, repeats=repeats)
    assert (found.error_step is None) == (found.flaw is None)
    assert found.error_step is None or 0 <= found.error_step < max(len(split_steps(response, "lines")), 1)


# --- lines may be repeated --------------------------------------------------------------------------------------------


@given(TASKS, BAD_HABITS, st.integers(0, 10**6), st.data())
def test_repeated_lines_change_no_verdict_where_they_are_allowed(
    task: Task, habits: Habits, seed: int, data: st.DataObject
) -> None:
    lines = trace(random.Random(seed), task, habits).splitlines()
    times = [data.draw(st.integers(1, 3)) for _ in lines]
    repeated = "\n".join(line for line, number in zip(lines, times, strict=True) for _ in range(number))
    plain, lenient = examine(task, "\n".join(lines)), examine(task, repeated, repeats=True)
    assert lenient.flaw == plain.flaw
    if plain.error_step is None:
        assert lenient.error_step is None
        assert (examine(task, repeated).error_step is None) == (max(times, default=1) == 1)
    else:
        assert lenient.error_step == sum(times[: plain.error_step])
    problem = task.problem("miniature-repeats-validation")
    assert ground_truth(Rollout(problem, repeated)) == lenient, "the set says what may be repeated"


def test_a_writer_repeats_lines_at_the_given_rate() -> None:
    rng, drawn = random.Random(0), [*tasks(0, 500)]
    lines = [trace(rng, task, replace(PERFECT, repeat=0.5)).splitlines() for task in drawn]
    assert all(
        examine(task, "\n".join(found), repeats=True).error_step is None
        for task, found in zip(drawn, lines, strict=True)
    )
    num_right = sum(len(task.operations) for task in drawn)
    assert sum(len(found) - 1 for found in lines) / num_right == pytest.approx(2, abs=0.2)
