"""A check of tyro that is made faster: whether the default value of an option has the type of the option.

tyro asks this for each option of a command. For a type such as `float | None` or `tuple[str, ...]`, and for the
function of a command, it imports typeguard for the answer, which takes as long as the import of tyro. tyro has no
setting for that: it makes the check first, whatever constructor the option has. The defaults of fapo are almost always
None, () or absent, and for these three the answer is known without typeguard.
"""

from __future__ import annotations

from types import FunctionType, NoneType
from typing import Any, get_args, get_origin

import tyro
from tyro import _resolver
from tyro.constructors import MISSING, MISSING_NONPROP

TYRO = "1.0.17"
"""Version of tyro with the function that is replaced; with any other version nothing is replaced."""


def answer_without_typeguard() -> None:
    """Replace tyro's check of a default value by one that answers simple cases itself; do it once."""
    original = getattr(_resolver, "is_instance", None)
    if tyro.__version__ != TYRO or original is None or hasattr(original, "__wrapped__"):
        return

    def is_instance(typ: Any, value: Any) -> bool:
        known = known_answer(typ, value)
        return original(typ, value) if known is None else known

    is_instance.__wrapped__ = original  # type: ignore[attr-defined]
    _resolver.is_instance = is_instance


def known_answer(typ: Any, value: Any) -> bool | None:
    """Return the answer of tyro's check where it is known without typeguard.

    Args:
        typ: Type of an option, or the function of a command or of an option, which typeguard does not check.
        value: Default value; `MISSING` or `MISSING_NONPROP` if there is none, for which tyro ignores the answer.

    Returns:
        Whether the value has the type; None where only typeguard knows.
    """
    if value is MISSING or value is MISSING_NONPROP or isinstance(typ, FunctionType):
        return True
    if value is None and NoneType in get_args(typ):
        return True
    if value == () and get_origin(typ) is tuple and Ellipsis in get_args(typ):
        return True
    return None
