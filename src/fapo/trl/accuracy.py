"""Reward for correct final answers alone, with the call of `trl.rewards.accuracy_reward`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fapo.data.problems import answer_of_worked_solution
from fapo.data.trajectory import make_rollout
from fapo.rewards.checkers import CheckerFunction, make_checker
from fapo.trl.reward import problem_text
from fapo.types import Problem


def accuracy_reward(
    completions: Sequence[Any],
    solution: Sequence[str | None],
    log_extra: Callable[[str, list[Any]], None] | None = None,
    log_metric: Callable[[str, float], None] | None = None,
    checker: str | CheckerFunction = "math",
    **columns: Any,
) -> list[float | None]:
    r"""Return 1 for each completion with the right boxed answer, else 0; TRL calls this with keyword arguments.

    It replaces `trl.rewards.accuracy_reward`. Each check ends at its time limit, in any thread and in a process that
    may have no children of its own. An answer that cannot be compared counts as wrong and is logged. For a checker
    of your own, give TRL `functools.partial(accuracy_reward, checker=function)`; TRL below 1.9 also needs its
    attribute `__name__`.

    Args:
        completions: Completions, as text or as conversations [num_rollouts].
        solution: Right answers, or worked solutions with the answer in a box or after "####" [num_rollouts].
        log_extra: TRL's function that adds a column to the completions table.
        log_metric: TRL's function that logs a number.
        checker: Answer check, as in `fapo.trl.flawed_aware_reward`.
        **columns: Columns of the data set; a checker of your own reads the problem in `problem` or in `prompts`.

    Returns:
        Rewards [num_rollouts]; None, which TRL leaves out, without a solution, or where the checker fails.

    Raises:
        ConfigError: If the checker cannot be used.
    """
    check = make_checker(checker)
    questions = columns.get("problem") or columns.get("prompts") or [""] * len(completions)
    references = [answer_of_worked_solution(text or "") for text in solution]
    rollouts = [
        make_rollout(Problem(str(i), problem_text(question or ""), reference), completion)
        for i, (question, reference, completion) in enumerate(zip(questions, references, completions, strict=True))
    ]
    with ThreadPoolExecutor(1) as thread:  # in a thread, since the caller may have a running event loop
        checks = thread.submit(asyncio.run, check(rollouts)).result()
    if log_extra:
        log_extra("solution", list(solution))
        log_extra("answer", [check.answer or "" for check in checks])
        log_extra("check", [check.detail or check.status for check in checks])
    if log_metric and checks:
        undecided = sum(check.undecided for check in checks)
        log_metric("accuracy_reward/undecided_rate", undecided / len(checks))
    scored = zip(checks, references, strict=True)
    return [float(check.correct) if reference and not check.unscored else None for check, reference in scored]
