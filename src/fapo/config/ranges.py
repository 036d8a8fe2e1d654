"""Types of numbers that have a range, for the tables of a config and for the settings of commands."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from fapo.errors import ConfigError

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic_core import ErrorDetails

Count = Annotated[int, Ge(1)]
Natural = Annotated[int, Ge(0)]
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
TopP = Annotated[float, Gt(0), Le(1)]
Below1 = Annotated[float, Ge(0), Lt(1)]
Rate = Annotated[float, Ge(0), Le(1)]
Seed = Annotated[int, Ge(0), Lt(2**31)]
"""Seed of a run. numpy takes seeds below 2**32, and a process adds its rank."""

CRITIQUE_TOKENS = 4096
"""Default length limit of a critique in tokens, the same for all commands, so that they share a response cache."""


def check_ranges(record: Any, source: str) -> None:
    """Check the fields of a dataclass that have one of the types of this module; call it in `__post_init__`.

    Fields of dataclasses in its fields are checked, too.

    Args:
        record: Instance of a dataclass.
        source: Name of the command or class, for the message.

    Raises:
        ConfigError: If a value is outside the range of its type.
    """
    from pydantic import ValidationError  # here, because it makes `fapo --help` slower

    for name, adapter in _ranges(type(record)).items():  # type: ignore[arg-type]  # a class can be hashed
        value = getattr(record, name)
        try:
            adapter.validate_python(value, strict=isinstance(value, str))  # the text "1" would stay a text
        except ValidationError as error:
            raise ConfigError(f"{source}: {name}: {expectation(error.errors()[0])}") from None
    for f in fields(record):
        if is_dataclass(inner := getattr(record, f.name)):
            check_ranges(inner, source)


def expectation(error: ErrorDetails) -> str:
    """Return what pydantic expects of a value, such as "should be greater than 0, not 0"."""
    _, should, rest = error["msg"].partition("should")
    return f"{should + rest or error['msg']}, not {error['input']!r}"


@lru_cache
def _ranges(record: type) -> dict[str, TypeAdapter[Any]]:
    """Return a validator for each field of a dataclass that has a range."""
    from pydantic import TypeAdapter

    plain, annotated = get_type_hints(record), get_type_hints(record, include_extras=True)
    return {f.name: TypeAdapter(annotated[f.name]) for f in fields(record) if annotated[f.name] != plain[f.name]}
