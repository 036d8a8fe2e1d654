"""A judge that judges equal rollouts once."""

from __future__ import annotations

KEPT = 1024
"""Verdicts that a reward worker remembers: more than the solutions of a batch that it is asked about."""
