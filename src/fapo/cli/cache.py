"""`fapo cache`: the size of a response cache, and its pruning."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path

from rich.table import Table
from tyro.conf import Positional

from fapo.cli.app import app, console, table_console
from fapo.errors import ConfigError

UNITS = {"MB": 10**6, "GB": 10**9}
"""Unit of a size -> number of bytes."""


@app.command("cache")
def cache(path: Positional[Path], /, *, prune: str | None = None) -> None:
    """Show the size of a response cache and the responses of each model in it; or remove responses first.

    Args:
        path: Cache, such as runs/NAME/cache.sqlite or verdicts.cache.sqlite.
        prune: Age such as 30d, or size such as 500MB or 2GB: older responses are removed, or the oldest until it fits.
            Responses that --no-cache has replaced are removed, too.
    """
    from fapo.inference.response_cache import ResponseCache

    limit = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)(d|MB|GB)", prune) if prune is not None else None
    if prune is not None and not limit:
        raise ConfigError(f"--prune: {prune!r} is neither an age nor a size; write it like 30d, 500MB or 2GB")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; give a response cache, such as runs/NAME/cache.sqlite")
    with closing(ResponseCache(path)) as opened:
        before = len(opened)
        if limit:
            number, unit = float(limit[1]), limit[2]
            kept = opened.prune(days=number) if unit == "d" else opened.prune(num_bytes=int(number * UNITS[unit]))
            console.line(f"removed {before - kept} of {before} responses")
        table = Table(caption=f"{opened.num_bytes() / 1e6:.2f} MB")
        for name in ("model", "responses", "first (UTC)", "last (UTC)"):
            table.add_column(name, no_wrap=name != "model", overflow="fold")
        for model, *rest in opened.by_model():
            table.add_row(model, *map(str, rest))
    table_console().print(table, markup=False)
