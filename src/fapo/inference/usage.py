"""Tokens that models have read and written, their sums, and their price."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from fapo.types import Completion, Judge, unwrapped

Prices = tuple[float, float, float]
"""Prices of a million prompt, cached and completion tokens, in one currency."""


@dataclass(frozen=True)
class Usage:
    """Sums over the requests to a model that were answered."""

    requests: int = 0
    """Number of answered requests; failed ones have no tokens."""
    prompt_tokens: int = 0
    """Tokens of the prompts, as the server counts them, with the cached ones."""
    cached_tokens: int = 0
    """Tokens of the prompts that the server had in its prefix cache, where it says so."""
    completion_tokens: int = 0
    """Tokens that the model wrote, with its thinking."""
    from_cache: int = 0
    """Number of responses from our own response cache; they cost nothing and are no requests."""

    def __add__(self, other: Usage) -> Usage:
        """Return the sums of both."""
        return Usage(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(Usage)))

    def __bool__(self) -> bool:
        """Return whether there was any response."""
        return bool(self.requests or self.from_cache)

    def cost(self, prices: Prices) -> float:
        """Return the price of all tokens, in the currency of the prices; cached tokens of prompts have their own."""
        prompt, cached, completion = prices
        uncached = max(0, self.prompt_tokens - self.cached_tokens)
        return (uncached * prompt + self.cached_tokens * cached + self.completion_tokens * completion) / 1e6

    def text(self, prices: Prices | None = None) -> str:
        """Return the sums as text for a line of output, with the cost if there are prices."""
        cached = f" ({self.cached_tokens:,} of them cached)" if self.cached_tokens else ""
        text = f"{self.requests:,} requests, {self.prompt_tokens:,} prompt tokens{cached}, "
        text += f"{self.completion_tokens:,} completion tokens"
        text += f"; {self.from_cache:,} responses from the cache" if self.from_cache else ""
        return text + (f"; cost {self.cost(prices):.4g}" if prices else "")

    def as_json(self, prices: Prices | None = None) -> dict[str, Any]:
        """Return the sums by name, with the cost, which is None without prices."""
        return {**asdict(self), "cost": self.cost(prices) if prices else None}


def usage_of(completions: Iterable[Completion]) -> Usage:
    """Return the sums over completions; failed ones do not count."""
    total = Usage()
    for c in completions:
        if c.from_cache:
            total += Usage(from_cache=1)
        elif not c.error:
            total += Usage(1, c.prompt_tokens, c.cached_tokens, c.num_tokens)
    return total


class UsageMeter:
    """Running sum of the usage of a model, for any number of threads. A copy in another process starts at zero."""

    def __init__(self, whole: UsageMeter | None = None) -> None:
        """Start at zero; `whole` counts the same usage too, beside that of other models."""
        self.whole = whole
        self.total = Usage()
        """Usage since the start."""
        self._taken = Usage()
        self._lock = threading.Lock()

    @property
    def progress_metrics(self) -> dict[str, int]:
        """Number of answers so far that came from the response cache, for a progress bar; empty while it is 0."""
        return {"from the cache": self.total.from_cache} if self.total.from_cache else {}

    def __reduce__(self) -> tuple[type[UsageMeter], tuple[UsageMeter | None]]:
        return UsageMeter, (self.whole,)

    def add(self, completions: Iterable[Completion]) -> None:
        """Add the usage of completions."""
        self._add(usage_of(completions))

    def _add(self, found: Usage) -> None:
        """Add usage here and to `whole`."""
        with self._lock:
            self.total += found
        if self.whole:
            self.whole._add(found)

    def take(self) -> Usage:
        """Return the usage since the last call of this function."""
        with self._lock:
            before, self._taken = self._taken, self.total
            return Usage(*(getattr(self._taken, f.name) - getattr(before, f.name) for f in fields(Usage)))


def find_usage(judge: Judge | None) -> UsageMeter | None:
    """Return the usage of a judge, also where other judges are wrapped around it; None for a judge without tokens."""
    meters = (getattr(part, "usage", None) for part in unwrapped(judge))
    return next((meter for meter in meters if isinstance(meter, UsageMeter)), None)
