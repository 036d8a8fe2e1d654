"""Choice of a GenRM's checkpoint: the best F1 in validation, with critiques that are short enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.box import SIMPLE
from rich.table import Table

from fapo.config.reader import from_dict
from fapo.config.schema import Config
from fapo.data.jsonl import finite_number
from fapo.errors import ConfigError, DataError
from fapo.training.run_reader import read_run

COLUMNS = ("f1", "precision", "recall", "location", "invalid_rate", "tokens")
"""Metrics of a GenRM's validation that the table shows."""
_REMEDY = (
    "train with validation.save_every = validation.every and a larger trl.save_total_limit, or with --engine verl "
    "verl.trainer.max_actor_ckpt_to_keep (2 by default)"
)


@dataclass(frozen=True)
class Candidate:
    """GenRM at one validation, with metrics that are averaged over the validation sets."""

    step: int
    """Step of the validation."""
    values: dict[str, float | None]
    """Metrics by the names in COLUMNS; None where a metric is not defined."""
    folder: Path | None
    """Folder of the weights; None if they were not kept, or not merged."""
    shards: Path | None = None
    """Checkpoint of verl, from which `verl.model_merger` makes the weights; None if there is none."""

    @property
    def f1(self) -> float:
        """F1; 0 where it is not defined."""
        return self.values["f1"] or 0.0

    @property
    def tokens(self) -> float:
        """Mean length of a critique in tokens."""
        tokens = self.values["tokens"]
        assert tokens is not None, "measured at every validation"
        return tokens


def candidates(folder: Path, sets: Sequence[str] = ()) -> list[Candidate]:
    """Return one candidate for each validation of a run, in order.

    Args:
        folder: Run folder of a GenRM.
        sets: Names of the validation sets to average over; all of them if empty.

    Returns:
        Candidates, also those without weights.

    Raises:
        DataError: If the folder holds no run, the run of a policy, or a run without validation.
        ConfigError: If the run has no validation set of a given name.
    """
    run = read_run(folder)
    config = from_dict(dict(run.config), str(folder / "config.json"))
    if config.task != "genrm":
        raise DataError(f'{folder}: the run of a policy; this chooses among the checkpoints of a run with task "genrm"')
    known = list(config.data.validation)
    if unknown := sorted(set(sets) - set(known)):
        raise ConfigError(f"{folder}: no validation set {', '.join(unknown)}; there are: {', '.join(known) or 'none'}")
    rows = [row for row in run.rows if row.get("kind") == "validation"]
    if not rows:
        raise DataError(f"{folder}: no validation in metrics.jsonl; give the run validation sets: data.validation.NAME")
    return [
        Candidate(
            row["step"],
            _means(row, sets or known),
            _weights(folder, config, row["step"]),
            shards if (shards := _shards(folder, row["step"])).is_dir() else None,
        )
        for row in rows
    ]


def choose(found: Sequence[Candidate], max_tokens: float | None = None) -> Candidate:
    """Choose the candidate with the highest F1, and among equals the earliest one.

    Args:
        found: Candidates of a run.
        max_tokens: Limit of the mean length of a critique, in tokens.

    Returns:
        Candidate with weights.

    Raises:
        DataError: If no candidate was kept or merged, none is within the limit, or F1 is defined for none.
    """
    kept = [candidate for candidate in found if candidate.folder]
    kept = kept or [candidate for candidate in found if candidate.shards]
    if not kept:
        steps = ", ".join(str(candidate.step) for candidate in found)
        raise DataError(f"none of the validated steps ({steps}) was kept; {_REMEDY}")
    short = [candidate for candidate in kept if max_tokens is None or candidate.tokens <= max_tokens]
    if not short:
        least = min(candidate.tokens for candidate in kept)
        raise DataError(f"no checkpoint writes at most {max_tokens:g} tokens; the shortest critiques have {least:.1f}")
    if all(candidate.values["f1"] is None for candidate in short):
        raise DataError(
            "F1 is not defined in validation: a set holds no flawed solution with a correct answer; "
            "name the sets that count by --sets"
        )
    best = max(short, key=lambda candidate: (candidate.f1, -candidate.step))
    if not best.folder:
        raise DataError(
            f"no checkpoint of verl is merged; step {best.step} is the best (F1 {best.f1:.3f}), {_merge(best)}"
        )
    return best


def better_lost_step(found: Sequence[Candidate], chosen: Candidate, max_tokens: float | None = None) -> str:
    """Return a note on a better step that was not kept.

    Args:
        found: Candidates of a run.
        chosen: Candidate that was chosen.
        max_tokens: Limit of the mean length of a critique, in tokens.

    Returns:
        Sentence with the step and the remedy; empty if no better step was lost. No run keeps step 0, which has the
        weights of `model.path`.
    """
    gone = [c for c in found if not c.folder and (max_tokens is None or c.tokens <= max_tokens) and c.f1 > chosen.f1]
    if not gone:
        return ""
    best = max(gone, key=lambda candidate: candidate.f1)
    if best.shards:
        return f"step {best.step} was better (F1 {best.f1:.3f}), but is not merged; {_merge(best)}"
    if best.step == 0:
        return f"step 0 was better (F1 {best.f1:.3f}): the model before the training, model.path of the config"
    return f"step {best.step} was better (F1 {best.f1:.3f}), but was not kept; {_REMEDY}"


def as_table(found: Sequence[Candidate], chosen: Candidate) -> Table:
    """Return the candidates as a table.

    Args:
        found: Candidates of a run.
        chosen: Candidate that is marked.

    Returns:
        Table with a row for each candidate.
    """
    table = Table(box=SIMPLE, padding=(0, 1, 0, 0))
    for heading in ("", "step", *(column.removesuffix("_rate") for column in COLUMNS), "weights"):
        table.add_column(heading, justify="left" if heading in ("", "weights") else "right", no_wrap=True)
    for candidate in found:
        cells = [_cell(candidate.values[column], 1 if column == "tokens" else 3) for column in COLUMNS]
        mark = ">" if candidate is chosen else ""
        absent = "not merged" if candidate.shards else "not kept" if candidate.step else "model.path"
        table.add_row(mark, str(candidate.step), *cells, candidate.folder.name if candidate.folder else absent)
    return table


def _cell(value: float | None, digits: int) -> str:
    """Return a number as text; "-" for None."""
    return "-" if value is None else f"{value:.{digits}f}"


def _weights(run: Path, config: Config, step: int) -> Path | None:
    """Return the folder of the weights after a step: a checkpoint, or the final model; None if they were not kept."""
    checkpoint = run / "checkpoints" / f"checkpoint-{step * config.optim.updates_per_batch}"
    last = run / "model"
    folders = [checkpoint, *([last] if step == config.optim.steps else [])]
    files = ("config.json", "adapter_config.json")
    if found := next((folder for folder in folders if any((folder / file).is_file() for file in files)), None):
        return found
    merged = _shards(run, step) / "huggingface"  # verl puts the config there, and the weights if it shall merge them
    if config.model.lora:
        merged /= "lora_adapter"
    return merged if any(merged.glob("*.safetensors")) else None


def _shards(run: Path, step: int) -> Path:
    """Return the folder of verl's checkpoint after a step, whether it is there or not."""
    return run / "checkpoints" / f"global_step_{step}" / "actor"


def _merge(candidate: Candidate) -> str:
    """Return what to do with a checkpoint of verl that is not merged."""
    shards = candidate.shards
    return (
        f"merge it: python -m verl.model_merger merge --backend fsdp --local_dir {shards} --target_dir "
        f"{shards}/huggingface"
    )


def _means(row: Mapping[str, Any], sets: Sequence[str]) -> dict[str, float | None]:
    """Return the mean of each column over validation sets; None where a set lacks a value."""
    values = {column: [finite_number(row.get(f"{name}/{column}")) for name in sets] for column in COLUMNS}
    return {
        column: None if None in found else fmean(v for v in found if v is not None) for column, found in values.items()
    }
