"""The generator of problems: references are correct, splits share nothing, a seed gives the same tasks."""

from __future__ import annotations

import pytest
from hypothesis import given

from fapo.data.miniature.world import (
    CHOICE_GAP,
    EASY,
    HARDER,
    MAX_VALUE,
    Difficulty,
    Task,
    parse,
    split_of,
    tasks,
)
from fapo.errors import DataError
from tests.support.miniature import ALL_FORMS, TASKS

SPLITS = ("train", "validation", "test")


def recomputed(text: str) -> tuple[list[int], str]:
    """Return the value after each operation and the answer, computed from the text of a question alone."""
    chain, _, form = text.partition("; ")
    start, *rest = chain.split(", ")
    values = [int(start.removeprefix("start "))]
    for operation in rest:
        word, operand = operation.split()
        values.append({"add": int.__add__, "minus": int.__sub__, "times": int.__mul__}[word](values[-1], int(operand)))
    if not form:
        return values, str(values[-1])
    if form.startswith("mod "):
        return values, str(values[-1] % int(form.removeprefix("mod ")))
    (letter,) = [choice.split(":")[1] for choice in form.split() if int(choice.split(":")[0]) == values[-1]]
    return values, letter


@given(TASKS)
def test_the_reference_is_right_and_no_number_is_too_large(task: Task) -> None:
    values, answer = recomputed(task.text)
    assert task.problem().reference == answer
    assert (task.start, *task.values) == tuple(values)
    assert all(0 <= value <= MAX_VALUE for value in values)
    assert all(0 <= choice <= MAX_VALUE for choice in task.choices)
    assert all(abs(a - b) >= CHOICE_GAP for i, a in enumerate(task.choices) for b in task.choices[:i])


@given(TASKS)
def test_a_task_can_be_read_back_from_its_text(task: Task) -> None:
    assert parse(task.text) == task


@pytest.mark.parametrize("text", ["", "start 5", "start 5, add 3; mod 5 ", "start x, add 3", "start 5, add 3; 1:A 2:B"])
def test_a_text_that_is_not_a_question_of_the_miniature_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="not a problem of the miniature"):
        parse(text)


def test_splits_share_no_chain_whatever_the_seed_and_the_difficulty() -> None:
    chains = {
        name: {
            (task.start, task.operations)
            for seed in range(3)
            for difficulty in (EASY, HARDER, ALL_FORMS)
            for task in tasks(seed, 200, difficulty, name)
        }
        for name in SPLITS
    }
    assert not chains["train"] & chains["validation"]
    assert not chains["train"] & chains["test"]
    assert not chains["validation"] & chains["test"]
    assert all(split_of(*chain) == name for name in SPLITS for chain in chains[name])


def test_tasks_are_unique_and_the_same_for_a_seed() -> None:
    texts = [task.text for task in tasks(7, 500)]
    assert len(set(texts)) == 500
    assert texts == [task.text for task in tasks(7, 500)]
    assert texts[:100] == [task.text for task in tasks(7, 100)], "a longer set begins like a shorter one"
    assert texts != [task.text for task in tasks(8, 500)]


@pytest.mark.parametrize("difficulty", [EASY, HARDER], ids=["easy", "harder"])
def test_the_difficulty_is_kept(difficulty: Difficulty) -> None:
    found = list(tasks(0, 300, difficulty))
    low, high = difficulty.num_operations
    assert {len(task.operations) for task in found} == set(range(low, high + 1))
    assert {task.form for task in found} == set(difficulty.forms)
