"""Checks of single final answers."""

from __future__ import annotations

from typing import Any

from fapo.rewards.verify import Check, check_answers

ENDLESS = "9^{9^{9^{9}}}"
"""A tower of powers that no computer can evaluate."""


def boxed(answer: str) -> str:
    """Return a solution that ends with an answer."""
    return f"So it follows that the answer is $\\boxed{{{answer}}}$."


def check(text: str, reference: str, **options: Any) -> Check:
    """Return the check of one solution."""
    return check_answers([(text, reference)], **options)[0]


def correct(answer: str, reference: str) -> bool:
    """Return whether an answer is right."""
    return check(boxed(answer), reference, deadline=60.0).correct
