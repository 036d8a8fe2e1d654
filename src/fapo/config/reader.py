"""Read a config from a TOML file and from overrides of the command line."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from fapo.config.messages import error_message, place_of
from fapo.config.paths import find_config, resolve_paths, shipped_configs
from fapo.config.schema import KINDS, UNUSED_BY_SFT, Config, CritiqueJudge, FapoReward, JudgeConfig, field_names
from fapo.errors import ConfigError

Places = Callable[[str], str]
"""Function that returns the place where a dotted key is set, such as "run.toml:7"."""


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Return the config that `load_with_places` reads."""
    return load_with_places(path, overrides)[0]


def load_with_places(path: str | Path, overrides: Sequence[str] = ()) -> tuple[Config, Places]:
    """Read a TOML file and apply overrides.

    Paths in the file are relative to the folder of the file, paths in overrides to the working directory.

    Args:
        path: TOML file, or the name of a shipped config; its paths are relative to the working directory.
        overrides: Settings "table.key=value"; "table.key=" removes one. Values are TOML values, and a bare word is a
            string. An override of the `kind` of reward or judge, or of the method, removes the settings of the file
            that do not belong to it. It does not remove those of other overrides, which are errors.

    Returns:
        The checked config, and the places of its settings.

    Raises:
        ConfigError: If the file cannot be read, or a setting cannot be used.
    """
    path = Path(path)
    table, origins = _read_toml(path)
    overridden = {
        _apply_override(table, override, str(path)): f'{path}, override "{override}"' for override in overrides
    }
    _remove_unsuited(table, overridden.keys())
    origins |= overridden
    config = from_dict(table, str(path), origins)

    def place(key: str) -> str:
        return place_of(key, str(path), origins)

    for key, template in (
        ("data.prompt", config.data.prompt),
        *((f"{key}.template", judge.template) for key, judge in config.judges if isinstance(judge, CritiqueJudge)),
        ("genrm.template", config.genrm.template if config.genrm else None),
    ):
        if template and template.endswith(".txt") and not Path(template).is_file():
            start = "the working directory" if place(key) in overridden.values() else "the config file"
            raise ConfigError(f"{place(key)}: {key}: no such file: {template}; give it relative to {start}")
    return config, place


def load_judge(path: str | Path) -> JudgeConfig:
    """Return the judge in the [judge] table of a TOML file, which may have other tables too.

    Args:
        path: TOML file, or the name of a shipped config. Paths in it are relative to its folder.

    Returns:
        The checked record of the judge.

    Raises:
        ConfigError: If the file cannot be read or has no [judge] table, or a setting cannot be used.
    """
    path = Path(path)
    table, origins = _read_toml(path)
    if not isinstance(table.get("judge"), dict):
        raise ConfigError(f"{path}: has no judge; add a [judge] table")
    return judge_config(table["judge"], str(path), origins)


def _read_toml(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the table of a TOML file with resolved paths, and the places of its keys."""
    file, folder = find_config(path)
    try:
        text = file.read_text(encoding="utf-8-sig")
        table = tomllib.loads(text)
    except FileNotFoundError:
        known = {name: name for name in shipped_configs()} if path.name == str(path) else {}
        known |= {p.stem: str(p) for p in path.parent.glob("*.toml")}
        near = get_close_matches(path.stem, known, n=1)
        remedy = (
            f"did you mean {known[near[0]]}?" if near else "give the path of a TOML file, or a name of `fapo configs`"
        )
        raise ConfigError(f"{path}: no such file; {remedy}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; give the path of a TOML file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text; give the path of a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}; text values need quotes") from None
    origins = {key: f"{path}:{line}" for key, line in _lines_of_keys(text)}
    resolve_paths(table, folder, lambda key: place_of(key, str(path), origins))
    return table, origins


def read_config(path: str | Path) -> Config:
    """Read the config in a TOML file, or in the config.json of a run folder. Raise ConfigError if there is none."""
    path = Path(path)
    if path.suffix != ".json":
        return load(path)
    try:
        return from_dict(json.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}; give a TOML file or a run's config.json") from None


def from_dict(table: Mapping[str, Any], source: str = "config", origins: Mapping[str, str] | None = None) -> Config:
    """Make a config of a nested table of settings.

    Args:
        table: Nested table, such as `to_dict` returns.
        source: Name of the table, for messages.
        origins: Dotted key -> place where it was set, for messages.

    Returns:
        The checked config.

    Raises:
        ConfigError: If a setting cannot be used.
    """
    reward = table.get("reward")
    penalty, shift = (reward.get(key) for key in ("penalty", "shift")) if isinstance(reward, dict) else (None, None)
    config: Config = _validated(Config, table, source, origins)
    if isinstance(config.reward, FapoReward) and shift is not None and penalty not in (None, config.reward.penalty):
        place = place_of("reward.shift", source, origins or {})
        raise ConfigError(f"{place}: reward.shift and reward.penalty exclude each other; remove one of them")
    return config


def judge_config(table: Mapping[str, Any], source: str, origins: Mapping[str, str] | None = None) -> JudgeConfig:
    """Make the record of a judge of its table.

    Args:
        table: Settings, as in a [judge] table.
        source: Name of the place of the settings, for messages.
        origins: Dotted key, such as "judge.model" -> place where it was set, for messages.

    Returns:
        The checked record of the judge.

    Raises:
        ConfigError: If a setting cannot be used.
    """
    tables = dict[str, Annotated[JudgeConfig, Field(discriminator="kind")]]
    judge: JudgeConfig = _validated(tables, {"judge": table}, source, origins)["judge"]
    return judge


def _validated(kind: Any, table: Mapping[str, Any], source: str, origins: Mapping[str, str] | None) -> Any:
    """Return a table as records of a type; raise ConfigError with a line for each setting that cannot be used."""
    try:
        # In strict mode pydantic accepts a list for a tuple in JSON only.
        return TypeAdapter(kind).validate_json(json.dumps(table, default=str))
    except ValidationError as error:
        raise ConfigError("\n".join(error_message(e, source, origins or {}) for e in error.errors())) from None


def to_dict(config: Config) -> dict[str, Any]:
    """Return every setting, also the defaults, as a nested table; `from_dict` reads it."""
    return asdict(config)


def _apply_override(table: dict[str, Any], override: str, source: str) -> str:
    """Put one override into the table and return its dotted key."""
    place = f'{source}, override "{override}"'
    key, equals, value = (part.strip() for part in override.partition("="))
    *parents, last = key.split(".")
    if not equals or not all((*parents, last)):
        raise ConfigError(f"{place}: not of the form table.key=value; write, for example, optim.steps=100")
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{place}: {parent} is a value, not a table; remove the rest of the key")
    if not value:
        table.pop(last, None)
        return key
    try:
        table[last] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError as error:
        if value[0] in "[{\"'":
            raise ConfigError(f"{place}: not a TOML value: {error}; quote it for the shell") from None
        table[last] = value
    return key


def _remove_unsuited(table: dict[str, Any], overridden: Collection[str]) -> None:
    """Remove the settings of the file that do not belong to a kind or method that an override has set."""
    for name, kinds in KINDS.items():
        settings = table.get(name)
        if f"{name}.kind" not in overridden or name in overridden or not isinstance(settings, dict):
            continue
        if record := kinds.get(str(settings.get("kind"))):
            for key in set().union(*map(field_names, kinds.values())) - field_names(record):
                if f"{name}.{key}" not in overridden:
                    settings.pop(key, None)
    rewarded = any(key.partition(".")[0] == "reward" for key in overridden)
    if "method" in overridden and table.get("method") == "sft":
        if not rewarded:
            table.pop("reward", None)
        for name, unused in UNUSED_BY_SFT.items():
            for key in unused:
                if f"{name}.{key}" not in overridden and isinstance(table.get(name), dict):
                    table[name].pop(key, None)


def _lines_of_keys(text: str) -> Iterator[tuple[str, int]]:
    """Yield the dotted keys of a TOML text with the numbers of their lines."""
    header = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if match := re.match(r"\s*\[\s*([\w.\"-]+)\s*\]", line):
            header = match[1].replace('"', "") + "."
            yield header[:-1], number
        elif match := re.match(r"\s*([\w.\"-]+)\s*=", line):
            yield header + match[1].replace('"', ""), number
