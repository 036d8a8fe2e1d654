"""The oracle: the truth about each step of a solution in the miniature."""

from __future__ import annotations

import re
from dataclasses import dataclass

from fapo.data.miniature.sets import has_oracle
from fapo.data.miniature.world import Flaw, Task, parse
from fapo.data.steps import split_steps
from fapo.types import GroundTruth, Rollout


def truth(rollout: Rollout) -> GroundTruth:
    """Return first wrong step and kind of flaw of a solution, by the oracle."""
    found = examine(parse(rollout.problem.text), rollout.response)
    return GroundTruth(found.error_step, found.flaw)


def known_truth(rollout: Rollout) -> GroundTruth | None:
    """Return first wrong step and kind of flaw by the oracle; None for problems that are not from the miniature."""
    return truth(rollout) if has_oracle(rollout.problem) else None


# --- the oracle -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Truth:
    """What is true of a solution."""

    correct: bool
    """The final answer is right."""
    error_step: int | None
    """Index of the first wrong line; None when every line is right."""
    flaw: Flaw | None
    """What kind of flaw the solution has; None when every line is right."""


_NUMBER = "(0|[1-9][0-9]{0,5})"
_LINE = re.compile(rf"{_NUMBER}([-+*]){_NUMBER}={_NUMBER}")


def examine(task: Task, response: str) -> Truth:
    """Check a solution exactly, line by line.

    A line is right when it applies the next operation of the chain to the value reached so far, with the right result.
    Kinds of flaw: `slip` (right operation, wrong result), `skip` (a line is missing: a jump), `guess` (the box does not
    follow from the last line, or stands there before the chain is done), `cancellation` (a first wrong line whose error
    a later one undoes, so that the last value is right by luck), `format` (what is not a line of the miniature).
    Lines are the steps a judge is shown, without the blanks around them: indices mean the same everywhere.
    """
    given, wanted = [step.strip() for step in split_steps(response)], task.lines
    answers = re.findall(r"\\boxed\{([^{}]*)\}", response)
    correct = bool(answers) and answers[-1] == task.answer(task.values[-1])
    error = next((i for i, (g, w) in enumerate(zip(given, wanted, strict=False)) if g != w), None)
    if error is None:
        if len(given) == len(wanted):
            return Truth(correct, None, None)
        error = len(wanted) if len(given) > len(wanted) else max(len(given) - 1, 0)
        return Truth(correct, error, "format")
    if given[error].startswith("\\boxed{") and given[error].endswith("}"):
        return Truth(correct, error, "guess")
    match = _LINE.fullmatch(given[error])
    if match is None:
        return Truth(correct, error, "format")
    before, operator, operand, after = int(match[1]), match[2], int(match[3]), int(match[4])
    reached = (task.start, *task.values)[min(error, len(task.operations))]
    due = task.operations[error] if error < len(task.operations) else None
    if due != (operator, operand) or before != reached:
        return Truth(correct, error, "skip" if (operator, operand) in task.operations[error:] else "format")
    last = _LINE.fullmatch(given[-2]) if len(given) == len(wanted) else None
    undone = last is not None and error < len(task.operations) - 1 and int(last[4]) == task.values[-1]
    return Truth(correct, error, "cancellation" if undone and after != task.values[error] else "slip")
