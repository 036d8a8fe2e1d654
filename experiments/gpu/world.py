r"""The miniature in sentences: its problems, solutions and critiques in English, and the same oracle.

"Start with 52. Take away 17. Multiply by 3. What remains when it is divided by 10?" is answered by

    Taking 17 away from 52 leaves 35.
    Multiplying 35 by 3 gives 105.
    Divided by 10, that leaves \boxed{5}.

Each sentence stands for one line of the miniature (`52-17=35`). Tasks, habits of imperfect writers, critiques and the
oracle are therefore those of the miniature. Numbers have up to three digits, which a pretrained model writes digit by
digit.
"""

from __future__ import annotations

import random
import re
import zlib
from typing import Any

from experiments.base_models import writers
from experiments.base_models.critiques import OK, critique
from experiments.base_models.writers import Habits
from fapo.data.miniature.oracle import examine, is_answer_correct
from fapo.data.miniature.world import Difficulty, Task
from fapo.data.steps import split_steps
from fapo.errors import DataError
from fapo.types import GroundTruth

EASY = Difficulty(num_operations=(2, 3), forms=("mod 5", "mod 10"), start=(20, 120))
"""Tasks of the training: remainders that hide a forgotten borrow."""
HARDER = Difficulty(num_operations=(4, 5), forms=("exact", "mod 7"), start=(20, 120))
"""Tasks that expose it: longer chains, the value itself or its remainder modulo 7."""
EVERYTHING = Difficulty(num_operations=(1, 5), forms=("exact", "mod 5", "mod 7", "mod 10"), start=(2, 160))
"""Tasks from which the base models learn."""

_ASKED = {"+": "Add", "-": "Take away", "*": "Multiply by"}
_DONE = {
    "+": "Adding {a} to {b} gives {v}.",
    "-": "Taking {a} away from {b} leaves {v}.",
    "*": "Multiplying {b} by {a} gives {v}.",
}
_NUMBER = r"(0|[1-9]\d{0,5})"
_STEPS = (
    ("+", re.compile(rf"Adding (?P<a>{_NUMBER}) to (?P<b>{_NUMBER}) gives (?P<v>{_NUMBER})\.")),
    ("-", re.compile(rf"Taking (?P<a>{_NUMBER}) away from (?P<b>{_NUMBER}) leaves (?P<v>{_NUMBER})\.")),
    ("*", re.compile(rf"Multiplying (?P<b>{_NUMBER}) by (?P<a>{_NUMBER}) gives (?P<v>{_NUMBER})\.")),
)
_BOX = re.compile(rf"(?:Divided by (?P<m>{_NUMBER}), that leaves|That makes) \\boxed\{{(?P<v>{_NUMBER})\}}\.")
_QUESTION = re.compile(
    r"Start with (\d+)\.((?: (?:Add|Take away|Multiply by) \d+\.)+) "
    r"(?:What remains when it is divided by (\d+)|What does that make)\?"
)
_LINE = re.compile(r"(\d+)([-+*])(\d+)=(\d+)")


def question(task: Task) -> str:
    """Return the question of a task in sentences."""
    chain = " ".join([f"Start with {task.start}.", *(f"{_ASKED[o]} {a}." for o, a in task.operations)])
    if task.form == "exact":
        return f"{chain} What does that make?"
    return f"{chain} What remains when it is divided by {task.form.split()[1]}?"


def parse(text: str) -> Task:
    """Return the task that a question states. Raise DataError for any other text."""
    match = _QUESTION.fullmatch(text)
    if match is None:
        raise DataError(f"not a question of this world: {text[:80]!r}; sentences are written by world.question")
    operators = {word: operator for operator, word in _ASKED.items()}
    chain = re.findall(r"(Add|Take away|Multiply by) (\d+)\.", match[2])
    return Task(
        int(match[1]), tuple((operators[w], int(a)) for w, a in chain), f"mod {match[3]}" if match[3] else "exact"
    )


def sentences(task: Task, response: str) -> str:
    r"""Return a solution of the miniature (`52-17=35`, `\boxed{5}`) in sentences."""
    return "\n".join(_sentence(task, line) for line in response.split("\n"))


def _sentence(task: Task, line: str) -> str:
    if step := _LINE.fullmatch(line):
        return _DONE[step[2]].format(b=step[1], a=step[3], v=step[4])
    return f"Divided by {task.form.split()[1]}, that leaves {line}." if task.form != "exact" else f"That makes {line}."


def lines(task: Task, response: str) -> str:
    """Return a solution in sentences as one line of the miniature for each of its steps; "?" for any other text."""
    return "\n".join(_line(task, step.strip()) for step in split_steps(response, "lines")) or "?"


def _line(task: Task, step: str) -> str:
    for operator, pattern in _STEPS:
        if match := pattern.fullmatch(step):
            return f"{match['b']}{operator}{match['a']}={match['v']}"
    match = _BOX.fullmatch(step)
    divisor = task.form.split()[1] if task.form != "exact" else None
    return f"\\boxed{{{match['v']}}}" if match and match["m"] == divisor else "?"


def truth(task: Task, response: str) -> GroundTruth:
    """Return the first wrong step of a solution in sentences and its kind of flaw, by the miniature's oracle."""
    return examine(task, lines(task, response))


def is_correct(task: Task, response: str) -> bool:
    """Return whether a solution in sentences ends in the right answer, stated as the world states it."""
    return is_answer_correct(task, lines(task, response))


def trace(rng: random.Random, task: Task, habits: Habits) -> str:
    """Return a solution in sentences by a writer with these habits."""
    return sentences(task, writers.trace(rng, task, habits))


def review(rng: random.Random, task: Task, response: str, habits: Habits) -> str:
    """Return a critique of a solution in sentences, by a reviewer with these habits.

    Each line computes a step, repeats the result in the solution and compares the two. The last line is a box with the
    index of the first wrong step, or -1.
    """
    return "\n".join(_remark(line) for line in critique(rng, task, lines(task, response), habits).split("\n"))


def _remark(line: str) -> str:
    if line.startswith("\\boxed"):
        return line
    left, found, mark = line.rsplit(" ", 2)
    step = _LINE.fullmatch(left)
    wanted = (
        _DONE[step[2]].format(b=step[1], a=step[3], v=step[4])[:-1] if step else f"The answer is {left.split()[-1]}"
    )
    return f"{wanted}, it says {found if found != '-' else 'something else'}, {'right' if mark == OK else 'wrong'}."


def row(task: Task, source: str) -> dict[str, Any]:
    """Return a problem as a row of a data set that `fapo train` reads."""
    text = question(task)
    reference = task.answer(task.values[-1])
    return {
        "id": f"{source}-{zlib.crc32(text.encode()):08x}",
        "problem": text,
        "reference": reference,
        "source": source,
    }
