"""A pool of equal servers that write many sequences at once, event by event. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Pool:
    """Servers of one model, with what they write spread evenly over them."""

    replicas: int
    """Servers."""
    slots: int
    """Sequences that one server writes at once; others wait, first come, first served."""
    step_seconds: float
    """Seconds in which one server writes one more token of each of its sequences, however few they are ..."""
    sequence_seconds: float = 0.0
    """... and what each of these sequences adds."""
    limit: int | None = None
    """Sequences that are under way at once in the whole pool; None: as many as there are slots."""

    def __post_init__(self) -> None:
        if self.replicas < 1 or self.slots < 1 or (self.limit is not None and self.limit < 1):
            raise ValueError(f"a pool needs a replica and a slot at least; got {self}")
        if self.step_seconds < 0 or self.sequence_seconds < 0:
            raise ValueError(f"a token cannot take less than no time; got {self}")

    @property
    def places(self) -> int:
        """Sequences that are under way at once."""
        return min(self.replicas * self.slots, self.limit or self.replicas * self.slots)

    def token_seconds(self, running: int) -> float:
        """Seconds in which each of so many sequences grows by a token."""
        return self.step_seconds + self.sequence_seconds * max(1.0, running / self.replicas)


def finish_times(arrivals: Sequence[float], tokens: Sequence[float], pool: Pool) -> list[float]:
    """When each sequence is written: `arrivals` in seconds, `tokens` to write; both [num_sequences], as the result is.

    All sequences under way grow at the same rate, which only changes when one comes or goes. So one clock that counts
    tokens will do for all of them: a sequence that starts at c with n tokens is done when the clock shows c + n. No
    sequence is done later with more replicas, for then none that is not done has more company.
    """
    order = sorted(range(len(arrivals)), key=lambda i: arrivals[i])
    done = [0.0] * len(arrivals)
    running: list[tuple[float, int]] = []
    now, clock, started = 0.0, 0.0, 0
    while running or started < len(order):
        while started < len(order) and len(running) < pool.places and arrivals[order[started]] <= now:
            heapq.heappush(running, (clock + tokens[order[started]], order[started]))
            started += 1
        if not running:
            now = arrivals[order[started]]
            continue
        pace = pool.token_seconds(len(running))
        ending = now + (running[0][0] - clock) * pace
        coming = arrivals[order[started]] if started < len(order) and len(running) < pool.places else ending
        if coming < ending:
            clock += (coming - now) / pace
            now = coming
            continue
        now, clock = ending, running[0][0]
        while running and running[0][0] <= clock:
            done[heapq.heappop(running)[1]] = now
    return done
