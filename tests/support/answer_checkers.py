"""Answer checkers that tests name as "tests.support.answer_checkers:NAME"."""

from __future__ import annotations

from fapo.types import Problem

not_a_function = 3


def even_length(response: str, reference: str, problem: Problem) -> bool:
    """Return whether the response has an even number of characters."""
    return len(response) % 2 == 0


async def ends_with_reference(response: str, reference: str, problem: Problem) -> bool:
    """Return whether the response ends with the reference."""
    return response.endswith(reference)


def any_box(response: str, reference: str, problem: Problem) -> bool:
    """Return whether the response has a box."""
    return "\\boxed{" in response


def broken(response: str, reference: str, problem: Problem) -> bool:
    """Raise an error."""
    raise RuntimeError("the unit tests are gone")


def two_arguments(response: str, reference: str) -> bool:
    """Return True; fapo gives three arguments."""
    return True
