"""Settings of a model that is asked: how it samples, and the limits of the requests to its servers.

Everything that asks a model has these records, or inherits from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from fapo.config.ranges import Count, NonNegative, Positive, TopP
from fapo.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a model samples."""

    temperature: NonNegative | None = None
    """Sampling temperature; 0 = greedy. None: the server's own, or 0 for a model in this process."""
    top_p: TopP | None = None
    """Probability mass of nucleus sampling; 1 = off. None: the server's own, or 1 for a model in this process."""
    max_tokens: Count | None = None
    """Length limit of an answer in tokens. None: the server's own, or 1024 for a model in this process."""


@dataclass(frozen=True, kw_only=True)
class RunSampling:
    """How a model samples in a run, where no setting is left to a server."""

    temperature: NonNegative = 1.0
    """Sampling temperature; 0 = greedy."""
    top_p: TopP = 1.0
    """Probability mass of nucleus sampling; 1 = off."""


@dataclass(frozen=True, kw_only=True)
class Requests:
    """Limits of the requests to the servers of a model."""

    concurrency: Count = 64
    """Number of requests under way at once, or size of a batch of a model in this process."""
    timeout: Positive = 600.0
    """Time limit of one try of a request, in seconds."""
    deadline: Positive | None = None
    """Time limit of all tries of a request together, in seconds; by default there is none."""


def settings_of(kind: type[Sampling] | type[Requests], record: Sampling | Requests) -> dict[str, Any]:
    """Return some of the settings of a record.

    Args:
        kind: Class that has these settings.
        record: Instance of the class, or of one that inherits from it and has further settings.

    Returns:
        Name of each field of `kind` -> its value in the record.
    """
    return {f.name: getattr(record, f.name) for f in fields(kind)}


def check_extra_body(extra_body: Mapping[str, Any]) -> None:
    """Check the further fields of requests.

    Args:
        extra_body: Name of each field -> its value.

    Raises:
        ConfigError: A field decides what is asked, or in which form the answer comes.
    """
    if not isinstance(extra_body, Mapping):
        raise ConfigError(f"`extra_body` is {str(extra_body)[:40]!r}, must be a table of fields and their values")
    if fixed := {"model", "messages", "stream", "n"} & extra_body.keys():
        raise ConfigError(f"`extra_body` must not set {', '.join(sorted(fixed))}: fapo sets what it reads")
