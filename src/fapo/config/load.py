"""Read a config from TOML and command-line overrides."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, cast, get_args, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError

from fapo.config.schema import _KINDS, _PATTERNS, Config, FapoReward, JudgeConfig, ModelJudge
from fapo.errors import ConfigError

_FORMER = {
    "reward.judge_alarms": "its name is reward.judge_false_positive_rate now",
    "reward.located": "it was removed, CHANGELOG.md says why; delete it",
    "reward.follow_rho": "it was removed, CHANGELOG.md says why; delete it",
    "judge.misses": "its name is judge.false_negative_rate now",
    "judge.alarms": "its name is judge.false_positive_rate now",
    "judge.canary_share": "its name is judge.canary_rate now",
    "judge.max_failed_share": "its name is judge.max_failure_rate now",
    "judge.journal": "its name is judge.cache now",
    "judge.early_stop": "it was removed, CHANGELOG.md says why; delete it",
}
"""Keys of earlier versions, for the messages only."""


def load(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a TOML file and replace single settings.

    Args:
        path: TOML file.
        overrides: Settings "table.key=value"; "table.key=" removes one. Values are TOML values; a bare word is a
            string. Where an override sets another `kind` of reward or judge, or method "sft", settings of the file
            that do not belong to it are dropped; settings of other overrides are not, they are errors.

    Returns:
        The checked config.

    Raises:
        ConfigError: The file cannot be read, or a setting cannot be used.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except FileNotFoundError:
        near = get_close_matches(path.name, [p.name for p in path.parent.glob("*.toml")], n=1)
        remedy = f"did you mean {path.with_name(near[0])}?" if near else "give the path of a TOML file"
        raise ConfigError(f"{path}: no such file; {remedy}") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; give the path of a TOML file") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not UTF-8 text; give the path of a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}; text values need quotes") from None
    origins = {key: f"{path}:{line}" for key, line in _lines(text)}
    overridden = {_apply(table, override, str(path)): f'{path}, override "{override}"' for override in overrides}
    _drop_unsuited(table, overridden.keys())
    origins |= overridden
    config = from_dict(table, str(path), origins)
    for key, template in (
        ("data.prompt", config.data.prompt),
        ("judge.template", config.judge.template if isinstance(config.judge, ModelJudge) else None),
        ("genrm.template", config.genrm.template if config.genrm else None),
    ):
        if template and template.endswith(".txt") and not Path(template).is_file():
            place = _place(key, str(path), origins)
            raise ConfigError(f"{place}: {key}: no such file: {template}; give it relative to the working directory")
    return config


def read_config(path: str | Path) -> Config:
    """Return the config in a TOML file, or in the config.json of a run folder. Raise ConfigError if there is none."""
    path = Path(path)
    if path.suffix != ".json":
        return load(path)
    try:
        return from_dict(json.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}; give a TOML file or a run's config.json") from None


def from_dict(table: Mapping[str, Any], source: str = "config", origins: Mapping[str, str] | None = None) -> Config:
    """Check a nested table of settings.

    Args:
        table: Nested table, such as `to_dict` returns.
        source: Name of the table for messages.
        origins: Dotted key -> where it was set, for messages.

    Returns:
        The checked config.

    Raises:
        ConfigError: A setting cannot be used.
    """
    reward = table.get("reward")
    penalty, shift = (reward.get(key) for key in ("penalty", "shift")) if isinstance(reward, dict) else (None, None)
    try:
        # JSON, since pydantic takes lists for tuples there although it is strict otherwise.
        config = TypeAdapter(Config).validate_json(json.dumps(table, default=str))
    except ValidationError as error:
        raise ConfigError("\n".join(_message(e, source, origins or {}) for e in error.errors())) from None
    if isinstance(config.reward, FapoReward) and shift is not None and penalty not in (None, config.reward.penalty):
        place = _place("reward.shift", source, origins or {})
        raise ConfigError(f"{place}: reward.shift and reward.penalty exclude each other; remove one of them")
    return config


def judge_config(table: Mapping[str, Any], source: str) -> JudgeConfig:
    """Check the settings of a judge alone.

    Args:
        table: The settings, as in a [judge] table.
        source: Where they were given, for messages.

    Returns:
        The checked record of the judge.

    Raises:
        ConfigError: A setting cannot be used.
    """
    judge: Any = Annotated[JudgeConfig, Field(discriminator="kind")]
    try:
        return cast(JudgeConfig, TypeAdapter(judge).validate_json(json.dumps(table, default=str)))
    except ValidationError as error:
        errors = [{**e, "loc": ("judge", *e["loc"])} for e in error.errors()]
        raise ConfigError("\n".join(_message(e, source, {}) for e in errors)) from None


def check_ranges(record: Any, source: str) -> None:
    """Check the fields of a dataclass that have one of the types above, such as `Count`.

    Args:
        record: The dataclass instance; the check is its `__post_init__`.
        source: Name of the command or class for messages.

    Raises:
        ConfigError: A value is outside the range of its type.
    """
    for name, adapter in _ranges(type(record)).items():  # type: ignore[arg-type]  # a class can be hashed
        try:
            adapter.validate_python(getattr(record, name))
        except ValidationError as error:
            raise ConfigError(_message({**error.errors()[0], "loc": (name,)}, source, {})) from None


@lru_cache
def _ranges(record: Any) -> dict[str, TypeAdapter[Any]]:
    """The fields of a dataclass whose types have ranges."""
    plain, whole = get_type_hints(record), get_type_hints(record, include_extras=True)
    return {f.name: TypeAdapter(whole[f.name]) for f in fields(record) if whole[f.name] != plain[f.name]}


def to_dict(config: Config) -> dict[str, Any]:
    """Every setting, defaults included, as a nested table for the run folder; `from_dict` reads it back."""
    return asdict(config)


def known_keys(cls: type = Config, prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys of all settings, tables included: "name", ..., "model", "model.path", ..."""
    yield from dict.fromkeys(_known_keys(cls, prefix))


def _known_keys(cls: type, prefix: str) -> Iterator[str]:
    hints = get_type_hints(cls)
    for f in fields(cls):
        yield prefix + f.name
        for inner in (hints[f.name], *get_args(hints[f.name])):
            if is_dataclass(inner) and isinstance(inner, type):
                yield from _known_keys(inner, f"{prefix}{f.name}.")


def _apply(table: dict[str, Any], override: str, source: str) -> str:
    """Put one override into the table; returns its dotted key."""
    key, equals, value = (part.strip() for part in override.partition("="))
    *parents, last = key.split(".")
    if not equals or not all((*parents, last)):
        raise ConfigError(f'{source}, override "{override}": not of the form table.key=value')
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise ConfigError(f'{source}, override "{override}": {parent} is a value, not a table')
    if not value:
        table.pop(last, None)
        return key
    try:
        table[last] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError as error:
        if value[0] in "[{\"'":
            raise ConfigError(f'{source}, override "{override}": not a TOML value: {error}') from None
        table[last] = value
    return key


def _drop_unsuited(table: dict[str, Any], overridden: Collection[str]) -> None:
    """Drop the settings of the file that do not belong to a kind or method that an override has set."""
    for name, kinds in _KINDS.items():
        settings = table.get(name)
        if f"{name}.kind" not in overridden or name in overridden or not isinstance(settings, dict):
            continue
        if record := kinds.get(str(settings.get("kind"))):
            for key in set().union(*map(_names, kinds.values())) - _names(record):
                if f"{name}.{key}" not in overridden:
                    settings.pop(key, None)
    rewarded = any(key.partition(".")[0] == "reward" for key in overridden)
    if "method" in overridden and table.get("method") == "sft" and not rewarded:
        table.pop("reward", None)


def _lines(text: str) -> Iterator[tuple[str, int]]:
    """Dotted keys of a TOML text with the lines they stand on."""
    header = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if match := re.match(r"\s*\[\s*([\w.\"-]+)\s*\]", line):
            header = match[1].replace('"', "") + "."
            yield header[:-1], number
        elif match := re.match(r"\s*([\w.\"-]+)\s*=", line):
            yield header + match[1].replace('"', ""), number


def _place(key: str, source: str, origins: Mapping[str, str]) -> str:
    """Where a key, or else the nearest table around it, was set."""
    while key and key not in origins:
        key = key.rpartition(".")[0]
    return origins.get(key, source)


def _message(error: Any, source: str, origins: Mapping[str, str]) -> str:
    """One line for one of pydantic's errors: place, key, what is wrong, remedy."""
    kind, loc = "", error["loc"]
    if len(loc) > 1 and loc[0] in _KINDS:  # pydantic puts the kind between the table and the key
        kind, loc = loc[1], (loc[0], *loc[2:])
    key = ".".join(map(str, loc))
    table, _, last = key.rpartition(".")
    place = _place(key, source, origins)
    match error["type"]:
        case "unexpected_keyword_argument":
            if owners := [f'"{o}"' for o, record in _KINDS.get(table, {}).items() if last in _names(record)]:
                wrong = f'`{last}` does not belong to kind "{kind}"; it belongs to {" and ".join(owners)}'
                return f"{place}: {key}: {wrong}; remove it, or change `kind`"
            return f"{place}: {key}: unknown key; {_suggestion(key)}"
        case "missing" if last.isdigit():
            return f"{place}: {table}: has too few values; add one"
        case "too_long":
            return f"{place}: {key}: has too many values; {error['ctx']['max_length']} are expected"
        case "missing":
            return f"{place}: {key} is missing; add `{last}`" + (f" to [{table}]" if table else "")
        case "value_error":
            return f"{place}: {key}{': ' if key else ''}{error['ctx']['error']}"
        case "union_tag_not_found":
            return f"{place}: {key}.kind is missing; add `kind` to [{key}]"
        case "union_tag_invalid":
            found, known = error["ctx"]["tag"], " or".join(error["ctx"]["expected_tags"].rsplit(",", 1))
            hint = '; to imitate critiques set method = "sft" and remove [reward]' if found == "genrm_sft" else ""
            return f"{_place(key + '.kind', source, origins)}: {key}.kind: should be {known}, not {found!r}{hint}"
        case "dataclass_type" | "dict_type":
            return f"{place}: {key}: should be a table, not {error['input']!r}; write [{key}]"
        case "string_pattern_mismatch":
            return f"{place}: {key}: should {_PATTERNS[error['ctx']['pattern']]}, not {error['input']!r}"
    message = "should" + error["msg"].partition("should")[2] if "should" in error["msg"] else error["msg"]
    return f"{place}: {key}: {message}, not {error['input']!r}"


def _names(record: type) -> set[str]:
    return {f.name for f in fields(record)}


def _suggestion(key: str) -> str:
    """The closest known key: by the whole dotted key, by the same last part in another table, by a near last part."""
    if key in _FORMER:
        return _FORMER[key]
    known = list(known_keys())
    table, _, last = key.rpartition(".")
    siblings = [k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == table]
    by_last = {k.rpartition(".")[2]: k for k in reversed(known)}
    if near := get_close_matches(key, known, n=1, cutoff=0.8):
        return f"did you mean {near[0]}?"
    if last not in by_last and (near := get_close_matches(last, siblings, n=1)):
        return f"did you mean {table + '.' if table else ''}{near[0]}?"
    if near := get_close_matches(last, by_last, n=1):
        return f"did you mean {by_last[near[0]]}?"
    return f"known here: {', '.join(siblings)}"
