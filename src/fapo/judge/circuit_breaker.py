"""The circuit breaker: it stops a run when the judge, or another model, fails for too many requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from fapo.errors import FapoError, JudgeDownError
from fapo.judge.verdict_counts import FAILURES, remedy_of
from fapo.types import Verdict

WINDOW = 100
"""Number of latest results among which the failure rate is measured."""
MIN_RESULTS = 8
"""Minimum number of results before the failure rate is checked."""
ALL_FAILED = 0.99
"""Largest failure rate that does not stop a command: 99 of the last 100 requests may fail."""


class CircuitBreaker:
    """Stop a run when a model fails for too many requests.

    The rule is the same everywhere: the run stops when more than `max_failure_rate` of the latest results are failures.
    The latest results are the last WINDOW ones, or all that were recorded at once where these are more. The rule needs
    at least MIN_RESULTS results.
    """

    def __init__(
        self,
        max_failure_rate: float = ALL_FAILED,
        *,
        name: str = "the judge",
        remedy: str = "",
        num_expected: int = MIN_RESULTS,
        error: type[FapoError] = JudgeDownError,
        causes: Sequence[tuple[str, str]] = FAILURES,
    ) -> None:
        """Start without failures.

        Args:
            max_failure_rate: Largest fraction of failures that does not stop the run; 1 never stops it.
            name: Name of the model in the message.
            remedy: Sentence of the message that says what to do.
            num_expected: Number of results that are expected; if below MIN_RESULTS, the rule needs no more than these.
            error: Exception that stops the run.
            causes: Patterns of reasons, each with what to do about it, for the message.
        """
        self.max_failure_rate, self.error, self._causes = max_failure_rate, error, causes
        self._name, self._remedy = name, remedy
        self._min_results = min(MIN_RESULTS, num_expected)
        self._latest: list[str] = []

    def record(self, errors: Sequence[str]) -> None:
        """Add results, and raise `self.error` if the failure rate of the latest ones is too high.

        Args:
            errors: Reason of the failure of each request; an empty text for a request that was answered.

        Raises:
            self.error: If the failure rate of the latest results is above `max_failure_rate`.
        """
        self._latest = [*self._latest, *errors][-max(WINDOW, len(errors)) :]
        failures, num = Counter(filter(None, self._latest)), len(self._latest)
        if num < self._min_results or failures.total() <= self.max_failure_rate * num:
            return
        reason, times = failures.most_common(1)[0]
        default = f"Restore it and resume, or allow a larger max_failure_rate (now {self.max_failure_rate:g})"
        raise self.error(
            f"{self._name} is down: {failures.total()} of the last {num} requests failed, {times} of them with: "
            f"{reason}. {f'{cause}. ' if (cause := remedy_of(reason, self._causes)) else ''}{self._remedy or default}"
        )

    def record_verdicts(self, verdicts: Iterable[Verdict]) -> None:
        """Add verdicts as results, like `record`; those with status failed are failures."""
        self.record([(v.reason or "no reason given") if v.status == "failed" else "" for v in verdicts])


def repeat_command(kept: str | Path | None) -> str:
    """Return the remedy for a command that continues where it stopped; `kept` is where its answers are, if anywhere."""
    return f"Restore it and give the same command again{f'; answers so far are in {kept}' if kept else ''}"
