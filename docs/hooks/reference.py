"""MkDocs hook: the tables of reference/config.md and reference/cli.md, made from the code when the site is built."""

from __future__ import annotations

import ast
import contextlib
import inspect
import io
import itertools
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter

from fapo import cli, config

COLUMNS = "80"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Add to both pages what they are about."""
    made = {"reference/config.md": keys, "reference/cli.md": commands}.get(page.file.src_uri)
    return f"{markdown}\n{made()}" if made else markdown


def keys() -> str:
    """All keys, a section for each table of the TOML file."""
    schema = TypeAdapter(config.Config).json_schema()
    tables = {name: _table(field, schema) for name, field in schema["properties"].items()}
    parts = [*_section("Top level", config.Config, schema, {n for n, table in tables.items() if table})]
    for name, table in tables.items():
        if table:
            parts += _section(f"`[{name}]`", getattr(config, table), schema["$defs"][table], set())
    return "\n".join(parts)


def _table(field: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Name of the record that a key holds; empty for a plain value."""
    kinds = [field, *field.get("anyOf", []), *field.get("allOf", [])]
    return next((kind["$ref"].rpartition("/")[2] for kind in kinds if "$ref" in kind), "")


def _section(title: str, record: type, schema: Mapping[str, Any], tables: set[str]) -> Iterator[str]:
    told = docstrings(record)
    yield f"\n## {title}\n\n{inspect.getdoc(record)}\n\n| key | value | default | |\n|---|---|---|---|"
    for name, field in schema["properties"].items():
        if name not in tables:
            default = f"`{_toml(field['default'])}`" if field.get("default") not in (None, {}, []) else ""
            required = "**required**" if name in schema.get("required", []) else default
            yield f"| `{name}` | {_kind(field)} | {required} | {told[name]} |"


def _kind(field: Mapping[str, Any]) -> str:
    """The values a key takes, in words."""
    if "anyOf" in field:
        return ", ".join(_kind(kind) for kind in field["anyOf"] if kind.get("type") != "null")
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field["type"] == "array":
        fixed = field.get("prefixItems")
        return f"list of {len(fixed)} × {_kind(fixed[0])}" if fixed else f"list of {_kind(field['items'])}"
    words = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false", "object": "table"}
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {field[name]:g}" for name, sign in bounds.items() if name in field]
    return ", ".join([words[field["type"]], *limits])


def _toml(value: Any) -> str:
    if isinstance(value, bool | str):
        return str(value).lower() if isinstance(value, bool) else f'"{value}"'
    return str(list(value)) if isinstance(value, list | tuple) else f"{value:g}"


def docstrings(record: type) -> dict[str, str]:
    """What stands under each field of a record, in one line."""
    (body,) = [node.body for node in ast.parse(inspect.getsource(record)).body if isinstance(node, ast.ClassDef)]
    found = {}
    for field, text in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return found


def commands() -> str:
    """The help of every command."""
    names = re.search(r"\{([\w,-]+)\}", help_of())
    assert names, "the help begins with the list of commands"
    return "\n".join(f"\n## fapo {name}\n\n```text\n{help_of(name)}```" for name in names[1].split(","))


def help_of(*command: str) -> str:
    """What `fapo COMMAND --help` prints."""
    shown, before = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = COLUMNS
    try:
        with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
            cli.app.cli(prog="fapo", description="Flawed-aware policy optimization.", args=[*command, "--help"])
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    return "".join(f"{line.rstrip()}\n" for line in shown.getvalue().strip().splitlines())
