"""The config of a run: checked records, read from a TOML file and from overrides of the command line.

`schema` has the records, `reader` reads them, `messages` words what is wrong, `ranges` has the types of numbers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fapo.config.reader import from_dict, load, to_dict
    from fapo.config.schema import (
        AdapterJudge,
        CascadeJudge,
        Config,
        FapoReward,
        JudgeConfig,
        LocalJudge,
        OracleJudge,
        PRMJudge,
        RewardConfig,
        ServedJudge,
    )

__all__ = [
    "AdapterJudge",
    "CascadeJudge",
    "Config",
    "FapoReward",
    "JudgeConfig",
    "LocalJudge",
    "OracleJudge",
    "PRMJudge",
    "RewardConfig",
    "ServedJudge",
    "from_dict",
    "load",
    "to_dict",
]


def __getattr__(name: str) -> Any:
    """Import a name at its first use: `fapo --help` needs `ranges` alone, and pydantic takes long to import."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("fapo.config.reader" if name.islower() else "fapo.config.schema"), name)
