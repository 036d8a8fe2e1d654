"""Options that several commands have, each declared once with its help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from tyro.conf import OmitArgPrefixes, Positional, arg

from fapo.config.ranges import NonNegative
from fapo.types import StepRule

if TYPE_CHECKING:
    from fapo.config.schema import Config

T = TypeVar("T")
Options = Annotated[OmitArgPrefixes[T], arg(name="")]
"""A dataclass; each of its fields is an option of the command."""
Files = Annotated[Positional[tuple[str, ...]], arg(metavar="[FILE ...]")]
"""Data files or Hugging Face ids, as the arguments of a command."""
AsJson = Annotated[bool, arg(name="json", help="Print JSON instead of a table.")]
Quiet = Annotated[bool, arg(help="Show no progress bar.")]
Human = Annotated[Path | None, arg(help="File of labels exported from such a page, which are compared with the judge.")]
AnswerCheck = Annotated[
    str,
    arg(help="Answer check: math, choice, exact, or package.module:function, a function of yours that returns a bool."),
]
Prices = Annotated[
    tuple[NonNegative, NonNegative, NonNegative] | None,
    arg(
        help="Prices of a million prompt, cached and completion tokens of the judge, in any currency, to show the cost."
    ),
]
Steps = Annotated[
    StepRule | None,
    arg(
        help="Steps of a solution: paragraphs, or lines where it has no empty line; the default is the template's own."
    ),
]


def default_cache(out: Path | None) -> Path:
    """Return the response cache of a command: beside its output file, or in the current folder if it has none."""
    # "." has no name, and is refused as an output file
    return out.with_suffix(".cache.sqlite") if out and out.name else Path("fapo.cache.sqlite")


@dataclass(frozen=True, kw_only=True)
class ConfigFile:
    """Config of a run."""

    config: Positional[Path]
    """TOML file, or a name of `fapo configs`."""
    overrides: Annotated[Positional[tuple[str, ...]], arg(metavar="[KEY=VALUE ...]")] = ()
    """Settings that replace those of the file, such as reward.penalty=0.5; KEY= removes a setting."""

    def load(self) -> Config:
        """Return the config; raise ConfigError if it cannot be used."""
        from fapo.config.reader import load  # here, because it makes `fapo --help` slower

        return load(self.config, self.overrides)
