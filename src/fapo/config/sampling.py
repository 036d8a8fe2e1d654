"""Settings of a model that is asked: how it samples, and the limits of the requests to its servers."""

from __future__ import annotations

from dataclasses import dataclass

from fapo.config.ranges import Count, NonNegative, Positive, TopP


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a model samples."""

    temperature: NonNegative = 0.0
    """Sampling temperature; 0 = greedy."""
    top_p: TopP | None = None
    """Probability mass of nucleus sampling; 1 = off. None: the server's own, or 1 for a model in this process."""
    max_tokens: Count | None = None
    """Length limit of an answer in tokens. None: the server's own, or 1024 for a model in this process."""


@dataclass(frozen=True, kw_only=True)
class Requests:
    """Limits of the requests to the servers of a model."""

    concurrency: Count = 64
    """Number of requests under way at once, or size of a batch of a model in this process."""
    timeout: Positive = 600.0
    """Time limit of one try of a request, in seconds."""
    deadline: Positive | None = None
    """Time limit of all tries of a request together, in seconds; by default there is none."""
