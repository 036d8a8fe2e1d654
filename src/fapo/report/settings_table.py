"""Settings, versions and times of runs, side by side."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fapo.config.flatten import flatten
from fapo.data.jsonl import finite_number
from fapo.training.run_reader import Run

MISSING = "–"
"""Value of a setting that a run does not have."""
MAIN = (
    *("model.path", "data.train", "judge.kind", "judge.model", "judge.urls", "judge.template", "reward.kind"),
    *("reward.penalty", "optim.learning_rate", "optim.steps", "rollout.num_prompts", "rollout.group_size"),
    *("rollout.max_tokens", "seed"),
)
"""Settings that are shown first."""


@dataclass(frozen=True)
class SettingRow:
    """One setting of several runs."""

    name: str
    """Name of the setting, such as optim.learning_rate."""
    values: tuple[str, ...]
    """Value in each run as text; MISSING where a run does not have the setting."""

    @property
    def differs(self) -> bool:
        """Whether two runs that have the setting have different values."""
        return len(set(self.values) - {MISSING}) > 1


@dataclass(frozen=True)
class SettingsTable:
    """Settings of several runs; every row has one value for each run."""

    names: tuple[str, ...]
    """Names of the runs."""
    main: tuple[SettingRow, ...]
    """Main settings, all settings that differ, versions and times."""
    rest: tuple[SettingRow, ...]
    """All other settings, which are the same in all runs."""


def settings_table(runs: Sequence[Run]) -> SettingsTable:
    """Return the settings, versions and times of runs."""
    tables = [_texts(run.config) for run in runs]
    rows = [_row(name, tables) for name in dict.fromkeys(key for table in tables for key in table)]
    order = {name: place for place, name in enumerate(MAIN)}
    rows.sort(key=lambda row: order.get(row.name, len(MAIN)))
    hidden = ("name", "output", "task")
    rows = [row for row in rows if row.name not in hidden]
    chosen = [row for row in rows if row.name in order or row.differs]
    facts = [dict(_facts(run)) for run in runs]
    chosen += [_row(name, facts) for name in dict.fromkeys(key for table in facts for key in table)]
    rest = [row for row in rows if row not in chosen]
    return SettingsTable(tuple(run.name for run in runs), tuple(chosen), tuple(rest))


def _row(name: str, tables: Sequence[Mapping[str, str]]) -> SettingRow:
    """Return the values of one setting in all runs."""
    return SettingRow(name, tuple(table.get(name, MISSING) for table in tables))


def _texts(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings of nested tables as text by their full names; unset ones are left out."""
    given = {key: value for key, value in flatten(config) if value not in (None, "", {})}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in given.items()}


def _facts(run: Run) -> Iterator[tuple[str, str]]:
    """Yield when and how long a run was trained, and with what versions; what is unknown is left out."""
    seconds = [found for row in run.rows if (found := finite_number(row.get("seconds"))) is not None]
    environment, metrics = run.environment, run.path / "metrics.jsonl"
    if "started" in environment:
        yield "started", str(environment["started"])
    if metrics.is_file():
        yield "last written", datetime.fromtimestamp(metrics.stat().st_mtime, UTC).strftime("%Y-%m-%d %H:%M UTC")
    if seconds:
        yield "duration", _duration(max(seconds))
    yield "last step", str(run.last_step)
    for name in ("python", "platform", "cpus"):
        if name in environment:
            yield name, str(environment[name])
    versions = environment.get("versions")
    if isinstance(versions, Mapping):
        yield from ((f"version of {name}", str(version)) for name, version in versions.items())


def _duration(seconds: float) -> str:
    """Return a time in hours and minutes."""
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 120 else f"{minutes} min" if minutes < 120 else f"{seconds / 3600:.1f} h"
