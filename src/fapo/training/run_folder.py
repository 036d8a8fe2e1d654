"""The run folder: config, environment, one line a measurement, one line a rollout. Written as it happens."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fapo.config.reader import from_dict, to_dict
from fapo.config.schema import Config
from fapo.data.files import write_json
from fapo.data.jsonl import finite, read_jsonl, write_jsonl
from fapo.data.provenance import environment
from fapo.errors import ConfigError
from fapo.training.rollout_row import SCHEMA


class RunFolder:
    """output/name of a config: config.json, env.json, metrics.jsonl, rollouts.jsonl, checkpoints/.

    Of several processes each keeps its own rollouts (rollouts-1.jsonl ...); the first one writes all the rest.
    """

    def __init__(self, config: Config, *, resume: bool, rank: int = 0) -> None:
        """Open the folder. With `resume` an earlier run of the same config goes on; otherwise it must be new."""
        self.rank = rank
        self._rollouts = f"rollouts-{rank}.jsonl" if rank else "rollouts.jsonl"
        self.path = Path(config.output) / config.name
        self.checkpoints = self.path / "checkpoints"
        settings = json.loads(json.dumps(to_dict(config)))
        known = self.path / "config.json"
        if known.exists() and not rank:
            if not resume:
                raise ConfigError(f"{self.path}: already holds a run; remove it, choose another name, or resume it")
            earlier = from_dict(json.loads(known.read_text(encoding="utf-8")), str(known))  # with today's defaults
            before = json.loads(json.dumps(to_dict(earlier)))
            free = ("output", "optim", "validation")
            changed = [key for key in settings if _fixed(settings[key]) != _fixed(before[key]) and key not in free]
            if settings["optim"]["updates_per_batch"] != before["optim"]["updates_per_batch"]:
                changed.append("optim.updates_per_batch")  # in which checkpoints are counted
            if changed:
                raise ConfigError(f"{self.path}: cannot resume, the config differs in {', '.join(changed)}")
        self.path.mkdir(parents=True, exist_ok=True)
        if not rank:
            write_json(known, settings)
            write_json(self.path / "env.json", environment())
        self._begun = time.monotonic() - self._seconds_before()

    def _seconds_before(self) -> float:
        return max((row.get("seconds", 0.0) for row in self._read("metrics.jsonl")), default=0.0)

    def _read(self, name: str) -> list[dict[str, Any]]:
        path = self.path / name
        return list(read_jsonl(path, ignore_torn_tail=True)) if path.exists() else []

    def rewind(self, step: int) -> list[dict[str, Any]]:
        """Drop what was written after `step`, which will be done again; returns the dropped rollout rows.

        These are kept in undone.jsonl, so that a second interruption loses no verdict either.
        """
        undone = f"undone-{self.rank}.jsonl" if self.rank else "undone.jsonl"
        for name in (self._rollouts,) if self.rank else ("metrics.jsonl", self._rollouts):
            rows = self._read(name)
            later = [row for row in rows if row["step"] > step]
            if later and name == self._rollouts:
                write_jsonl(self.path / undone, later, append=True)
            if later:
                write_jsonl(self.path / name, [row for row in rows if row["step"] <= step])
        return self._read(undone)

    def metrics(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Add one row of measurements; what is not finite becomes null."""
        if self.rank:
            return
        row = {"step": step, "kind": kind, "seconds": round(time.monotonic() - self._begun, 3)}
        write_jsonl(self.path / "metrics.jsonl", [{**row, **finite(values)}], append=True)

    def rollouts(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows of rollouts."""
        write_jsonl(self.path / self._rollouts, [{"schema": SCHEMA, **row} for row in rows], append=True)


_WHERE_AND_HOW_FAST = {"urls", "concurrency", "timeout", "deadline", "cache", "max_failure_rate", "overlap"}
"""Of a judge: what may be another when its run is resumed."""


def _fixed(value: Any) -> Any:
    """What of a setting must be the same when a run is resumed."""
    return {k: v for k, v in value.items() if k not in _WHERE_AND_HOW_FAST} if isinstance(value, dict) else value
