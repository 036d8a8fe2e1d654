"""Type of a dataclass with the options of a command."""

from typing import Annotated, TypeVar

from tyro.conf import OmitArgPrefixes, arg

T = TypeVar("T")
Options = Annotated[OmitArgPrefixes[T], arg(name="")]
"""A dataclass; each of its fields is an option of the command."""
