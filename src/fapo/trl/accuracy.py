"""Reward for correct final answers alone, with the call of `trl.rewards.accuracy_reward`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fapo.data.problems import answer_of_worked_solution
from fapo.data.trajectory import read_completion
from fapo.rewards.verify import check_answers


def accuracy_reward(
    completions: Sequence[Any],
    solution: Sequence[str],
    log_extra: Callable[[str, list[Any]], None] | None = None,
    log_metric: Callable[[str, float], None] | None = None,
    **_: Any,
) -> list[float | None]:
    r"""Return 1 for each completion with the right boxed answer, else 0; TRL calls this with keyword arguments.

    It replaces `trl.rewards.accuracy_reward`. Each check ends at its time limit, in any thread and in a process that
    may have no children of its own. A check without a result counts as wrong and is logged.

    Args:
        completions: Completions, as text or as conversations [num_rollouts].
        solution: Right answers, or worked solutions with the answer in a box or after "####" [num_rollouts].
        log_extra: TRL's function that adds a column to the completions table.
        log_metric: TRL's function that logs a number.

    Returns:
        Rewards [num_rollouts]; None, which TRL leaves out, for an empty solution.
    """
    references = [answer_of_worked_solution(text) for text in solution]
    responses = [read_completion(completion)[0] for completion in completions]
    checks = check_answers(list(zip(responses, references, strict=True)))
    if log_extra:
        log_extra("solution", list(solution))
        log_extra("answer", [check.answer or "" for check in checks])
        log_extra("check", [check.detail or check.status for check in checks])
    if log_metric and checks:
        undecided = sum(check.status in ("timeout", "error") for check in checks)
        log_metric("accuracy_reward/undecided_rate", undecided / len(checks))
    return [float(check.correct) if reference else None for check, reference in zip(checks, references, strict=True)]
