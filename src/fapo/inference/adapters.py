"""Low-rank adapters on disk, and the package that reads them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fapo.errors import ConfigError, install


def adapter_base(folder: str) -> str | None:
    """Return the base model that the adapter in a folder names: a folder or Hub id; None if it holds no adapter.

    Raises ConfigError if the adapter names none.
    """
    file = Path(folder) / "adapter_config.json"
    if not file.is_file():
        return None
    try:
        base = json.loads(file.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError):
        base = None
    if not isinstance(base, str) or not base:
        raise ConfigError(f"{file}: names no base model; put its folder or Hub id into base_model_name_or_path")
    return base


def import_peft(user: str) -> Any:
    """Return the package peft; raise ConfigError if it is not installed. `user` names what needs it."""
    try:
        import peft
    except ImportError:
        raise ConfigError(f"{user} needs peft: {install('train')}") from None
    return peft
