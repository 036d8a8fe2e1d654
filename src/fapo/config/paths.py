"""Paths in a config file, which are relative to the folder of the file; and the configs that fapo ships, by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from fapo.config.schema import BASE, POLICY
from fapo.errors import ConfigError

_FOLDER = Path(__file__).parents[1]
_MINIATURE = _FOLDER / "data/miniature/configs"
ALWAYS_PATHS = ("output",)
"""Settings that are always paths; so is `cache` of a judge."""
PROMPTS = ("data.prompt", "genrm.template")
"""Settings with the path of a text file or the name of a built-in prompt, a bare word; so is `template` of a judge."""
SOURCES = ("data.train",)
"""Settings with the path of a data file, a Hugging Face id or "miniature:NAME"; so are data.validation and canaries."""


def shipped_configs() -> dict[str, Path]:
    """Return the configs that fapo ships, by name."""
    files = {path.stem: path for path in sorted((_FOLDER / "config/shipped").rglob("*.toml"))}
    return files | {"miniature": _MINIATURE / "policy.toml", "miniature_genrm": _MINIATURE / "genrm.toml"}


def find_config(path: Path) -> tuple[Path, Path]:
    """Return the file of a config, and the folder to which its paths are relative.

    Args:
        path: TOML file, or the name of a shipped config. A path with an ending or a folder is never a name.

    Returns:
        The file; and its folder, for a shipped config the working directory, as if a copy of it were there.
    """
    shipped = shipped_configs()
    return (shipped[str(path)], Path()) if str(path) in shipped else (path, path.parent)


def resolve_paths(table: dict[str, Any], folder: Path, place_of: Callable[[str], str]) -> None:
    """Replace the paths in the table of a config file by paths that are relative to the working directory.

    Args:
        table: Nested table of settings; it is changed.
        folder: Folder to which the paths in it are relative.
        place_of: Function that returns the place of a dotted key, for the message.

    Raises:
        ConfigError: If there is nothing at a path, but at the same path in the working directory there is.
    """
    if folder.resolve() == Path().resolve():
        return
    for key, inner, last in path_settings(table):
        value, beside = inner[last], folder / inner[last]
        if _is_path(key, value, folder):
            inner[last] = str(beside)
        if (
            key not in ALWAYS_PATHS
            and not key.endswith(".cache")
            and ("/" in value or Path(value).suffix)
            and Path(value).exists() > beside.exists()
        ):
            there = os.path.relpath(value, folder)
            raise ConfigError(
                f"{place_of(key)}: {key}: {value} is in the working directory, not at {beside}: paths in a file are "
                f'relative to the file; write "{there}"'
            )


def judge_tables(table: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the dotted keys of the judges in a nested table of settings, each with its table."""
    for place in (f"{judge}{part}" for judge in ("judge", "judge.audit.judge") for part in ("", ".cheap", ".strong")):
        yield place, _inner(table, place)


def path_settings(table: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield the dotted keys of the settings that may be paths, each with its table and its last part."""
    keys = [*ALWAYS_PATHS, *PROMPTS, *SOURCES, "model.path"]
    keys += [f"data.validation.{name}" for name in _inner(table, "data.validation")]
    for place, judge in judge_tables(table):
        keys += [f"{place}.{name}" for name in ("canaries", "template", "cache", "tokenizer")]
        kind, model = judge.get("kind"), judge.get("model")
        is_name = kind == "served" or judge.get("urls") or (kind == "adapter" and model in (BASE, POLICY))
        if not is_name:
            keys.append(f"{place}.model")
    for key in keys:
        parent, _, last = key.rpartition(".")
        if key.startswith("data.validation."):  # the name of a set may have a dot
            parent, last = "data.validation", key.removeprefix("data.validation.")
        inner = _inner(table, parent)
        if isinstance(value := inner.get(last), str) and value:  # an empty text would become the folder of the file
            yield key, inner, last


def _inner(table: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the table with a dotted key; empty if there is none, or it is a value."""
    inner: Any = table
    for part in key.split(".") if key else ():
        inner = inner.get(part) if isinstance(inner, dict) else None
    return inner if isinstance(inner, dict) else {}


def _is_path(key: str, value: str, folder: Path) -> bool:
    """Return whether a setting is a path; if not, it is a built-in name, a Hugging Face id or "miniature:NAME"."""
    last = key.rpartition(".")[2]
    if key in ALWAYS_PATHS or last == "cache" or value.startswith(("./", "../")):
        return True
    if key in PROMPTS or last == "template":
        return "/" in value or Path(value).suffix != ""
    is_data = key in SOURCES or last == "canaries" or key.startswith("data.validation.")
    return (is_data and value.endswith((".jsonl", ".json", ".parquet"))) or (folder / value).exists()
