"""Run folder: config, prompts, environment, measurements, rollouts, and the cache of critiques."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fapo.config.reader import from_dict, to_dict
from fapo.config.schema import (
    POLICY,
    AdapterJudge,
    CascadeJudge,
    Config,
    CritiqueJudge,
    GenRMConfig,
    JudgeConfig,
    ModelJudge,
)
from fapo.data.files import write_json
from fapo.data.jsonl import finite, read_jsonl, write_jsonl
from fapo.data.problems import load_prompt
from fapo.data.provenance import environment
from fapo.errors import ConfigError
from fapo.inference.response_cache import shared_file_system
from fapo.judge.from_config import check_caches
from fapo.judge.template import load_template
from fapo.training.rollout_row import SCHEMA
from fapo.training.run_lock import lock_folder

SWITCHED = "second_judge"
"""File in the run folder of a run of verl, from the step on at which the second judge has replaced the first one."""
_CHECKPOINTS = {"trl": "checkpoint-*", "verl": "global_step_*"}
"""Engine -> pattern of its folders in checkpoints/."""


class RunFolder:
    """Folder of a run, `output/name` of its config.

    It holds config.json, prompts.json, env.json, metrics.jsonl, rollouts.jsonl, cache.sqlite and checkpoints/, and
    audit.jsonl if the judge is audited. With several processes, each one writes its own rollouts and audits
    (rollouts-1.jsonl ...), and the first one writes the rest.
    """

    def __init__(self, config: Config, *, resume: bool, rank: int = 0, lock: bool = False) -> None:
        """Open the folder.

        Args:
            config: Config of the run.
            resume: Whether to continue an earlier run of the same config; otherwise the folder must be new.
            rank: Number of this process, from 0.
            lock: Whether the first process locks the folder, before it writes into it.

        Raises:
            ConfigError: The folder holds a run and `resume` is off, a setting or the text of a prompt differs that
                must not change, or another process has locked the folder.
        """
        self.rank = rank
        self._rollouts, self._audit = (
            f"{name}-{rank}.jsonl" if rank else f"{name}.jsonl" for name in ("rollouts", "audit")
        )
        self.path = Path(config.output) / config.name
        self.switched = self.path / SWITCHED
        self.checkpoints = self.path / "checkpoints"
        settings = json.loads(json.dumps(to_dict(config)))
        known = self.path / "config.json"
        if known.exists() and not rank:
            if not resume:
                raise ConfigError(f"{self.path}: already holds a run; remove it, choose another name, or resume it")
            earlier = from_dict(json.loads(known.read_text(encoding="utf-8")), str(known))  # with present defaults
            before = json.loads(json.dumps(to_dict(earlier)))
            fixed_audit = earlier.audit and (earlier.audit.correct or earlier.audit.switches)
            if config.audit and config.audit.switches and earlier.judge and not fixed_audit:
                # a run that was stopped may continue with its second judge
                before["judge"]["audit"] = settings["judge"]["audit"]
            free = ("output", "optim", "validation")
            changed = [
                key for key in settings if _comparable(settings[key]) != _comparable(before[key]) and key not in free
            ]
            if settings["optim"]["updates_per_batch"] != before["optim"]["updates_per_batch"]:
                changed.append("optim.updates_per_batch")  # the steps of checkpoints are counted in it
            if changed:
                raise ConfigError(f"{self.path}: cannot resume, the config differs in {', '.join(changed)}")
        prompts, texts = self.path / "prompts.json", _prompts(config)
        if known.exists() and prompts.exists() and not rank:
            old = json.loads(prompts.read_text(encoding="utf-8"))
            free_prompts = () if config.audit and (config.audit.correct or config.audit.switches) else ("judge.audit.",)
            fixed = {key: text for key, text in texts.items() if not key.startswith(free_prompts)}
            if changed := [key for key, text in fixed.items() if old.get(key, text) != text]:
                raise ConfigError(
                    f"{self.path}: cannot resume, the text of {', '.join(changed)} has changed; the old text is in "
                    f"{prompts.name}: put it back, or start a new run"
                )
        self.path.mkdir(parents=True, exist_ok=True)
        if lock and not rank:
            lock_folder(self.path)  # now, since the files that follow are those of the run that is training here
        if not rank:
            write_json(prompts, texts)
            write_json(known, settings)
            started = datetime.now(UTC).isoformat(timespec="seconds")
            write_json(self.path / "env.json", {"started": started, **environment()})
        seconds = max((row.get("seconds", 0.0) for row in self._read("metrics.jsonl")), default=0.0)
        self._begun = time.monotonic() - seconds

    def _read(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield the rows of a file; none if it does not exist."""
        path = self.path / name
        return read_jsonl(path, ignore_torn_tail=True) if path.exists() else iter(())

    def rewind(self, step: int) -> None:
        """Remove all rows after `step`, since the steps that follow are repeated; the cache keeps their critiques.

        The first process does so in the files of all processes: it alone has checked that the run may continue, and a
        run may be resumed with fewer processes than it had.
        """
        if self.rank:
            return
        found = [path.name for kind in ("rollouts", "audit") for path in sorted(self.path.glob(f"{kind}*.jsonl"))]
        for name in ["metrics.jsonl", *found]:
            if any(row["step"] > step for row in self._read(name)):
                # read again, since a list of all rollouts takes much memory
                write_jsonl(self.path / name, (row for row in self._read(name) if row["step"] <= step))

    def metrics(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Add a row to metrics.jsonl; a value that is not finite is written as null.

        Args:
            step: Training step.
            kind: Kind of measurement: train or validation.
            values: Metrics by name.
        """
        if self.rank:
            return
        row = {"step": step, "kind": kind, "seconds": round(time.monotonic() - self._begun, 3)}
        write_jsonl(self.path / "metrics.jsonl", [{**row, **finite(values)}], append=True)

    def rollouts(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows to the rollouts of this process."""
        write_jsonl(self.path / self._rollouts, [{"schema": SCHEMA, **row} for row in rows], append=True)

    def audits(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add rows to the audits of this process."""
        if rows:
            write_jsonl(self.path / self._audit, rows, append=True)

    def earlier_audits(self) -> list[dict[str, Any]]:
        """Return the rows of all processes in audit.jsonl, in the order of their steps, those of a step by process."""
        names = sorted((path.name for path in self.path.glob("audit*.jsonl")), key=lambda name: (len(name), name))
        return sorted((row for name in names for row in self._read(name)), key=lambda row: row["step"])


def check_engine(config: Config, engine: str) -> None:
    """Raise an error for a run of another engine: this one would find no checkpoint, and remove all rows on record.

    Args:
        config: Config of a run that shall be resumed.
        engine: trl or verl.

    Raises:
        ConfigError: If the folder of the run has checkpoints of the other engine.
    """
    folder = Path(config.output) / config.name
    for other, pattern in _CHECKPOINTS.items():
        if other != engine and (found := sorted((folder / "checkpoints").glob(pattern))):
            raise ConfigError(
                f"{folder}: cannot resume with --engine {engine}, since checkpoints/{found[-1].name} is of the other "
                f"engine; resume the run with --engine {other}"
            )


_FREE_OF_JUDGE = {"urls", "concurrency", "timeout", "deadline", "cache", "max_failure_rate", "overlap", "audit"}
"""Settings of a judge that may change when a run is resumed: where it runs, how fast, and what watches it.

An audit may not change that corrects rewards, but for the limit at which it stops the run. Nor may one that can replace
the judge."""


def _comparable(value: Any) -> Any:
    """Return the part of a setting that must not change when a run is resumed."""
    if not isinstance(value, dict):
        return value
    inner = {k: _comparable(v) if k in ("cheap", "strong") else v for k, v in value.items()}
    kept = {k: v for k, v in inner.items() if k not in _FREE_OF_JUDGE}
    if (audit := value.get("audit")) and (audit["correct"] or audit["on_low_j"] == "switch"):
        kept["audit"] = {"judge": _comparable(audit["judge"]), "rate": audit["rate"]}
        if audit["on_low_j"] == "switch":
            kept["audit"] |= {"min_j": audit["min_j"], "on_low_j": "switch"}
    return kept


def _prompts(config: Config) -> dict[str, str]:
    """Return the text of each prompt file or built-in prompt that a run uses, by the key of its setting."""
    tables = [("genrm", config.genrm), *config.judges]
    named = {f"{key}.template": t.template for key, t in tables if isinstance(t, CritiqueJudge | GenRMConfig)}
    texts = {key: load_template(name).file_text for key, name in named.items()}
    return texts | ({"data.prompt": load_prompt(config.data.prompt)} if config.data.prompt else {})


def with_cache(config: Config, *, num_nodes: int = 1, node: str = "") -> Config:
    """Return the config with a cache for its judges: cache.sqlite in the run folder, unless the config names a file.

    Args:
        config: Config of a run.
        num_nodes: Number of machines that ask the judge. With several, each has a cache of its own.
        node: Name of this machine among them.

    Returns:
        The config; it is unchanged if no model judges, or the policy itself.

    Raises:
        ConfigError: Several machines would share the file that the config names, or two judges the answers in it.
    """
    name = f"cache-{node}.sqlite" if num_nodes > 1 else "cache.sqlite"
    default = str(Path(config.output) / config.name / name)

    def cached(judge: JudgeConfig) -> JudgeConfig:
        """Return a judge with its cache."""
        if isinstance(judge, CascadeJudge):
            return judge.with_parts(cached)
        if not isinstance(judge, ModelJudge) or (isinstance(judge, AdapterJudge) and judge.model == POLICY):
            return judge  # the answers of the policy itself change with each step
        if judge.cache and num_nodes > 1 and (kind := shared_file_system(judge.cache)):
            raise ConfigError(
                f"judge.cache: {judge.cache} is on a file system ({kind}) that several nodes may share, but SQLite is "
                "for one machine; leave judge.cache out, or name a path on a disk that each node has for itself"
            )
        return replace(judge, cache=judge.cache or default)

    if not config.judge:
        return config
    audit = config.audit
    if audit and audit.second:
        audit = replace(audit, judge=cached(audit.second))
    config = replace(config, judge=replace(cached(config.judge), audit=audit))
    check_caches(config.judges)
    return config
