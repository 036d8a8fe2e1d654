"""The one rule for [trl] and [verl]: a backend setting must not contradict the setting from which it follows."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

from fapo.config.flatten import flatten
from fapo.config.schema import Config
from fapo.errors import ConfigError

_DEVICES = {"trainer.nnodes": 1, "trainer.n_gpus_per_node": 8}
"""Settings of verl that multiply to the number of devices, with their defaults."""


def verl_devices(config: Config) -> tuple[int, int]:
    """Return the number of nodes, and the number of GPUs on each of them, that [verl] asks for.

    Raises ConfigError if one of them is no whole number of at least 1.
    """
    table = dict(flatten(config.verl))
    found = {key: table.get(key, default) for key, default in _DEVICES.items()}
    for key, value in found.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"[verl]: {key} = {value!r}; give a whole number of at least 1")
    nodes, gpus = found.values()
    return nodes, gpus


def check_backend(config: Config, table: str, derived: Mapping[str, Any], owners: Mapping[str, str]) -> None:
    """Raise an error for a backend setting that differs from the value that follows from the rest of the config.

    Without this rule the backend and the run folder would differ in what they mean by a step, a group or an advantage.

    Args:
        config: Config of the run.
        table: Name of the table with the backend's settings: "trl" or "verl".
        derived: Dotted backend key -> value that follows from the config.
        owners: Dotted backend key -> setting of the config that owns it, such as "optim.steps". Keys that are not in it
            are free.

    Raises:
        ConfigError: If a setting contradicts its owner. The message has both names and both values.
    """
    for key, value in flatten(getattr(config, table)):
        name = key.lstrip("+")
        if name not in owners or name not in derived or value == derived[name]:
            continue
        owner, own = owners[name], reduce(getattr, owners[name].split("."), config)
        raise ConfigError(
            f"[{table}]: {key} = {value!r} contradicts {owner} = {own!r}, from which it follows as {derived[name]!r}; "
            f"remove it from [{table}], and set {owner} if you mean another value"
        )
