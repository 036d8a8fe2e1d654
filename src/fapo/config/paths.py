"""Paths in a config file, which are relative to the folder of the file; and the configs that fapo ships, by name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fapo
from fapo.errors import ConfigError

_FOLDER = Path(fapo.__file__).parent
_MINIATURE = _FOLDER / "data/miniature/configs"
ALWAYS_PATHS = ("output", "judge.cache")
"""Settings that are always paths."""
PROMPTS = ("data.prompt", "judge.template", "genrm.template")
"""Settings with the path of a text file or the name of a built-in prompt, which is a bare word."""
SOURCES = ("data.train", "judge.canaries")
"""Settings with the path of a data file, a Hugging Face id or "miniature:NAME"; so is each value of data.validation."""


def shipped_configs() -> dict[str, Path]:
    """Return the configs that fapo ships, by name."""
    files = {path.stem: path for path in sorted((_FOLDER / "config/shipped").glob("*.toml"))}
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
    for key, inner, last in _path_settings(table):
        value, beside = inner[last], folder / inner[last]
        if _is_path(key, value, folder):
            inner[last] = str(beside)
        if key not in ALWAYS_PATHS and ("/" in value or Path(value).suffix) and Path(value).exists() > beside.exists():
            there = os.path.relpath(value, folder)
            raise ConfigError(
                f"{place_of(key)}: {key}: {value} is in the working directory, not at {beside}: paths in a file are "
                f'relative to the file; write "{there}"'
            )


def _path_settings(table: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield the dotted keys of the settings that may be paths, each with its table and its last part."""
    data, judge = (found if isinstance(found := table.get(name), dict) else {} for name in ("data", "judge"))
    validation = data.get("validation")
    keys = [*ALWAYS_PATHS, *PROMPTS, *SOURCES, "model.path"]
    keys += ["judge.model"] if judge.get("kind") != "served" else []  # else it is a name at the servers
    keys += [f"data.validation.{name}" for name in validation] if isinstance(validation, dict) else []
    for key in keys:
        *parents, last = key.split(".", 2)
        inner: Any = table
        for parent in parents:
            inner = inner.get(parent) if isinstance(inner, dict) else None
        if isinstance(inner, dict) and isinstance(inner.get(last), str):
            yield key, inner, last


def _is_path(key: str, value: str, folder: Path) -> bool:
    """Return whether a setting is a path; if not, it is a built-in name, a Hugging Face id or "miniature:NAME"."""
    if key in ALWAYS_PATHS or value.startswith(("./", "../")):
        return True
    if key in PROMPTS:
        return "/" in value or Path(value).suffix != ""
    is_data = key in SOURCES or key.startswith("data.validation.")
    return (is_data and value.endswith((".jsonl", ".json", ".parquet"))) or (folder / value).exists()
