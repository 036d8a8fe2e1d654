"""Messages about settings that cannot be used: the place, the key, what is wrong, and a remedy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING

from fapo.config.ranges import expectation
from fapo.config.schema import KINDS, PATTERNS, field_names, known_keys

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


def place_of(key: str, source: str, origins: Mapping[str, str]) -> str:
    """Find where a setting was made.

    Args:
        key: Dotted key.
        source: Name of the whole config.
        origins: Dotted key -> place, such as "runs.toml:7".

    Returns:
        The place of the key, or of the nearest table around it, or else the source.
    """
    while key and key not in origins:
        key = key.rpartition(".")[0]
    return origins.get(key, source)


def error_message(error: ErrorDetails, source: str, origins: Mapping[str, str]) -> str:
    """Turn an error of pydantic into one line with place, key, what is wrong, and a remedy.

    Args:
        error: Error about one setting.
        source: Name of the whole config.
        origins: Dotted key -> place.

    Returns:
        The message.
    """
    kind, path = "", [""]
    for part in map(str, error["loc"]):
        if part in KINDS.get(path[-1], ()):  # pydantic puts the kind between the table and the key
            kind = part
        else:
            path.append(part)
    key = ".".join(path[1:])
    table, _, last = key.rpartition(".")
    place = place_of(key, source, origins)
    match error["type"]:
        case "unexpected_keyword_argument":
            if owners := [f'"{o}"' for o, record in KINDS.get(path[-2], {}).items() if last in field_names(record)]:
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
            return f"{place_of(key + '.kind', source, origins)}: {key}.kind: should be {known}, not {found!r}"
        case "dataclass_type" | "dict_type":
            return f"{place}: {key}: should be a table, not {error['input']!r}; write [{key}]"
        case "string_pattern_mismatch":
            return f"{place}: {key}: should {PATTERNS[error['ctx']['pattern']]}, not {error['input']!r}"
    return f"{place}: {key}: {expectation(error)}"


def _suggestion(key: str) -> str:
    """Return a remedy for an unknown key: the closest known key, or all keys of its table."""
    key = re.sub(r"^judge(\.audit\.judge)?(\.cheap|\.strong)?\.(?!audit\.)", "judge.", key)
    known = known_keys()
    table, _, last = key.rpartition(".")
    siblings = [k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == table]
    tables = {k.rpartition(".")[0] for k in known}
    by_last = {k.rpartition(".")[2]: k for k in reversed(known) if k not in tables}
    if near := get_close_matches(key, known, n=1, cutoff=0.8):
        return f"did you mean {near[0]}?"
    if last not in by_last and (near := get_close_matches(last, siblings, n=1)):
        return f"did you mean {table + '.' if table else ''}{near[0]}?"
    if near := get_close_matches(last, by_last, n=1):
        return f"did you mean {by_last[near[0]]}?"
    return f"known here: {', '.join(siblings)}"
