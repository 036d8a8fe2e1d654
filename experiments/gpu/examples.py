"""Training examples of the policy and of the judge in the world of sentences, and the problem sets of that world."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from experiments.base_models.build import WEAK
from experiments.base_models.writers import PERFECT, Habits
from experiments.gpu import world
from experiments.gpu.imitation import Example
from fapo.data.miniature.world import Difficulty, Split, Task, apply, make, tasks
from fapo.data.steps import split_steps
from fapo.judge import build_prompt, load_template

HASTY = Habits(borrow=0.12, borrow_slip=0.15, slip=0.12, easy_slip=0.02, skip=0.0, guess=0.0, answer_slip=0.0)
"""Habits of the reviewer that the judge imitates last: it flags too often, as small judges do."""
CAREFUL = Habits(borrow=0.04, borrow_slip=0.04, slip=0.03, easy_slip=0.02, skip=0.0, guess=0.0, answer_slip=0.0)
"""Habits of the reviewer that the judge imitates first."""
WRITERS = (
    Habits(),
    Habits(0.5, 0.15, 0.15, 0.1, 0.05, 0.05, 0.1),
    Habits(0.5, 0.05, 0.05, 0.02, 0.01, 0.2, 0.3),
    PERFECT,
)
"""Writers of the solutions that the judge learns to review, in equal parts."""
STARTS = {"shipped": Habits(), "weak": WEAK}
"""Habits of the writers that the policy imitates. The weak one is right on 19 %, flawed in 65 % of these."""
SETS: dict[str, tuple[int, int, Difficulty, Split]] = {
    "train": (1, 8192, world.EASY, "train"),
    "validation": (2, 512, world.EASY, "validation"),
    "harder": (3, 512, world.HARDER, "validation"),
}
"""Name -> seed, number of problems, difficulty, split."""


def exercise(rng: random.Random) -> Example:
    """Return ten operations with the right sentence for each. They teach arithmetic faster than solutions do."""
    asked: list[str] = []
    answers: list[str] = []
    while len(asked) < 10:
        task = make(rng, world.EVERYTHING)
        for before, (o, a) in zip((task.start, *task.values), task.operations, strict=False):
            asked.append(f"{before} {o} {a}")
            answers.append(f"{before}{o}{a}={apply(before, o, a)}")
    return "; ".join(asked[:10]), world.sentences(Task(0, (), "exact"), "\n".join(answers[:10]))


def skill_examples(seed: int, size: int) -> Iterator[list[Example]]:
    """Yield batches of `size` examples: half right solutions, half exercises."""
    rng = random.Random(seed)
    while True:
        solved = [(world.question(t), world.trace(rng, t, PERFECT)) for t in _draw(rng, size - size // 2)]
        yield [*solved, *(exercise(rng) for _ in range(size // 2))]


def habit_examples(seed: int, size: int, writer: Habits) -> Iterator[list[Example]]:
    """Yield batches of `size` solutions of a writer with the misconception; a third of the questions are harder."""
    rng = random.Random(seed)
    while True:
        drawn = [make(rng, world.HARDER if rng.random() < 1 / 3 else world.EASY) for _ in range(size)]
        yield [(world.question(task), world.trace(rng, task, writer)) for task in drawn]


def critique_examples(seed: int, size: int, steps: int, writer: Habits) -> Iterator[list[Example]]:
    """Yield batches of critiques of solutions of all writers, first by the careful reviewer, last by the hasty one.

    In the first half of the steps a quarter of each batch are exercises.

    Args:
        seed: Seed of tasks, writers and reviewers.
        size: Number of examples in a batch.
        steps: Number of batches in the schedule; the hasty reviewer writes the last 40 %.
        writer: Habits of the writer that the policy imitates; he is one of the writers.
    """
    writers = (*WRITERS, *([writer] if writer not in WRITERS else []))
    rng, step = random.Random(seed), 0
    while True:
        reviewer = CAREFUL if step < 0.6 * steps else HASTY
        num = size // 4 if step < steps / 2 else 0
        reviewed = [(task, world.trace(rng, task, rng.choice(writers))) for task in _draw(rng, size - num)]
        critiques = [(judge_prompt(*pair), world.review(rng, *pair, reviewer)) for pair in reviewed]
        yield [*critiques, *(exercise(rng) for _ in range(num))]
        step += 1


def _draw(rng: random.Random, num: int) -> list[Task]:
    """Return tasks of all three difficulties in equal parts."""
    return [make(rng, rng.choice((world.EASY, world.HARDER, world.EVERYTHING))) for _ in range(num)]


def judge_prompt(task: Task, response: str) -> str:
    """Return the prompt of the judge, made by the same builder as in training."""
    reference = task.answer(task.values[-1])
    prompt = build_prompt(load_template("compact"), world.question(task), reference, split_steps(response, "lines"))
    return prompt[-1]["content"]


def critic_rows(seed: int, num: int, part: Split, writer: Habits = STARTS["shipped"]) -> list[dict[str, Any]]:
    """Return labelled right solutions of the writer that the policy imitates; half of them are flawed.

    Args:
        seed: Seed of tasks and writer.
        num: Number of rows.
        part: Split of the tasks.
        writer: Habits of the writer.

    Returns:
        Rows that `fapo train` reads as labelled solutions; the oracle labelled them.
    """
    rng = random.Random(seed)
    kept: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    for task in tasks(seed, 10**6, world.EASY, part):
        response = world.trace(rng, task, writer)
        error_step = world.truth(task, response).error_step
        rows = kept[error_step is not None]
        if world.is_correct(task, response) and len(rows) < num // 2:
            label = -1 if error_step is None else error_step
            rows.append(world.row(task, f"critic-{part}") | {"steps": split_steps(response, "lines"), "label": label})
        if sum(map(len, kept.values())) == num:
            break
    rows = kept[False] + kept[True]
    rng.shuffle(rows)
    return rows
