"""The oracle of the miniature: it finds the first wrong step of a solution exactly."""

from __future__ import annotations

import re

from fapo.data.miniature.sets import freedom, has_oracle
from fapo.data.miniature.world import Task, parse
from fapo.data.steps import split_steps
from fapo.types import FlawKind, GroundTruth, Rollout

_NUMBER = "(0|[1-9][0-9]{0,5})"
_LINE = re.compile(rf"{_NUMBER}([-+*]){_NUMBER}={_NUMBER}")


def ground_truth(rollout: Rollout) -> GroundTruth:
    """Return the first wrong step and the kind of flaw of a rollout; raise DataError if its problem is foreign."""
    return examine(parse(rollout.problem.text), rollout.response, **freedom(rollout.problem))


def known_ground_truth(rollout: Rollout) -> GroundTruth | None:
    """Return the ground truth of a rollout; None for problems that are not from the miniature."""
    return ground_truth(rollout) if has_oracle(rollout.problem) else None


def is_answer_correct(task: Task, response: str) -> bool:
    r"""Check the final answer of a solution.

    Args:
        task: Task that the solution answers.
        response: Text of the solution.

    Returns:
        Whether the last `\boxed{...}` of the solution holds the right answer.
    """
    answers = re.findall(r"\\boxed\{([^{}]*)\}", response)
    return bool(answers) and answers[-1] == task.answer(task.values[-1])


def examine(task: Task, response: str, *, leaps: bool = False, repeats: bool = False) -> GroundTruth:
    """Find the first wrong step of a solution.

    A line is right when it applies the next operation of the chain to the value reached so far, with the right result.
    The kinds of flaw are:

    * `slip`: the right operation with a wrong result.
    * `skip`: a line is missing.
    * `guess`: the box does not follow from the last line, or it comes before the chain is done.
    * `cancellation`: a later error undoes the first one, so that the last value is right by luck.
    * `format`: the line is not a line of the miniature.

    With `leaps`, lines may be left out: every line that is there must be one of the right lines, in their order. A line
    that starts from a wrong value is then a `skip`, and a wrong box is a `guess`. No error is a `cancellation`.
    With `repeats`, a line that repeats the one before it is right if that one is.

    Args:
        task: Task that the solution answers.
        response: Text of the solution. Its lines are the steps that a judge reads with the template "compact".
        leaps: Whether lines may be left out.
        repeats: Whether lines may be repeated.

    Returns:
        The index of the first wrong line and the kind of flaw; both are None if every line is right.
    """
    given = [step.strip() for step in split_steps(response, "lines")]
    find = _examine_leaps if leaps else _examine_lines
    if not repeats:
        return find(task, given)
    first = [i for i, line in enumerate(given) if not i or line != given[i - 1]]
    found = find(task, [given[i] for i in first])
    return found._replace(error_step=first[found.error_step]) if found.error_step and first else found


def _examine_lines(task: Task, given: list[str]) -> GroundTruth:
    """Return the first wrong line of a solution that must have all lines, and its kind."""
    wanted = task.lines
    error = next((i for i, (g, w) in enumerate(zip(given, wanted, strict=False)) if g != w), None)
    if error is not None:
        return GroundTruth(error, _kind_of_flaw(task, given, error))
    if len(given) == len(wanted):
        return GroundTruth(None)
    return GroundTruth(len(wanted) if len(given) > len(wanted) else max(len(given) - 1, 0), "format")


def _examine_leaps(task: Task, given: list[str]) -> GroundTruth:
    """Return the first wrong line of a solution that may leave out lines, and its kind."""
    wanted, done = task.lines, 0  # done: number of right lines up to the last one that was found
    for error, line in enumerate(given):
        if line not in wanted[done:]:
            return GroundTruth(error, _kind_with_leaps(task, line, done))
        done = wanted.index(line, done) + 1
    return GroundTruth(None) if done == len(wanted) else GroundTruth(max(len(given) - 1, 0), "format")


def _kind_with_leaps(task: Task, line: str, done: int) -> FlawKind:
    """Return the kind of flaw of a wrong line, where the first `done` right lines are written or left out."""
    if line.startswith("\\boxed{") and line.endswith("}") and done < len(task.lines):
        return "guess"
    match, reached = _LINE.fullmatch(line), (task.start, *task.values)
    befores = [
        reached[i]
        for i in range(done, len(task.operations))
        if match and task.operations[i] == (match[2], int(match[3]))
    ]
    if match is None or not befores:
        return "format"
    return "slip" if int(match[1]) in befores else "skip"


def _kind_of_flaw(task: Task, given: list[str], error: int) -> FlawKind:
    """Return the kind of flaw of a solution, given its lines and the index of the first wrong one."""
    if given[error].startswith("\\boxed{") and given[error].endswith("}"):
        return "guess"
    match = _LINE.fullmatch(given[error])
    if match is None:
        return "format"
    before, operator, operand, after = int(match[1]), match[2], int(match[3]), int(match[4])
    reached = (task.start, *task.values)[min(error, len(task.operations))]
    due = task.operations[error] if error < len(task.operations) else None
    if due != (operator, operand) or before != reached:
        return "skip" if (operator, operand) in task.operations[error:] else "format"
    last = _LINE.fullmatch(given[-2]) if len(given) == len(task.lines) else None
    undone = last is not None and error < len(task.operations) - 1 and int(last[4]) == task.values[-1]
    return "cancellation" if undone and after != task.values[error] else "slip"
