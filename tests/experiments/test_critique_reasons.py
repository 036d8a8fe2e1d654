"""Critiques that are right for the wrong reason, counted on critiques of known quality."""

from __future__ import annotations

import random
from pathlib import Path

from experiments.base_models.critiques import critique
from experiments.base_models.writers import PERFECT
from experiments.critique_reasons import measured, unsound_line
from fapo.data.jsonl import write_jsonl
from fapo.data.load import load_labelled
from fapo.data.miniature.world import parse
from fapo.judge.template import load_template
from fapo.types import LabelledSolution

SOLUTIONS = load_labelled("miniature:critic-test")
FLAWED = next(s for s in SOLUTIONS if s.error_step is not None and s.error_step > 0)
SOUND = next(s for s in SOLUTIONS if s.error_step is None)


def exact(solution: LabelledSolution) -> str:
    return critique(random.Random(1), parse(solution.problem.text), "\n".join(solution.steps), PERFECT)


def test_an_exact_reviewer_is_sound_and_right_about_every_solution() -> None:
    template = load_template("compact")
    for solution in SOLUTIONS:
        assert unsound_line(solution, exact(solution)) is None
        verdict = template.parse(exact(solution), len(solution.steps))
        assert (verdict.flawed, verdict.error_step) == (solution.error_step is not None, solution.error_step)


def test_the_first_line_that_differs() -> None:
    first, *rest = exact(SOUND).split("\n")
    assert unsound_line(SOUND, "\n".join([first + "!", *rest])) == first
    assert unsound_line(SOUND, "\n".join([first, *rest[:-2], "answer 77 77 ok", rest[-1]])) == rest[-2]
    assert unsound_line(SOUND, rest[-1]) == first, "no reason at all"


def row(solution: LabelledSolution, text: str, step: int, split: str = "test") -> dict:
    verdict = load_template("compact").parse(text, len(solution.steps))
    found = {"flawed": verdict.flawed, "error_step": verdict.error_step}
    return {"step": step, "split": split, "problem_id": solution.problem.id, "response": text, **found}


def test_counts_of_each_validation(tmp_path: Path) -> None:
    lines = exact(SOUND).split("\n")
    wrong_answer = "\n".join([*lines[:-2], "answer 77 77 ok", lines[-1]])
    box = exact(FLAWED).split("\n")[-1]
    rows = [
        row(SOUND, exact(SOUND), 0),
        row(SOUND, wrong_answer, 0),
        row(SOUND, lines[-1], 0),
        row(SOUND, "\\boxed{0}", 0),  # a wrong label
        row(FLAWED, exact(FLAWED), 0),
        row(FLAWED, box, 0),
        row(FLAWED, "\\boxed{0}", 0),  # a wrong step
        row(FLAWED, "nothing", 0),  # no verdict
        row(SOUND, exact(SOUND), 10),
        row(SOUND, lines[-1], 1, "train"),
    ]
    write_jsonl(tmp_path / "rollouts.jsonl", rows)
    assert measured([tmp_path]) == {0: (8, 2, 1, 3, 2, 1), 10: (1, 0, 0, 1, 0, 0)}
    assert measured([tmp_path, tmp_path])[0] == (16, 4, 2, 6, 4, 2)
