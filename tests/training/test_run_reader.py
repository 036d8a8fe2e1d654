"""Run folders as they are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fapo.errors import DataError
from fapo.training.run_reader import read_run


def write_run(folder: Path, rows: str) -> Path:
    """Write a run folder with these lines of metrics."""
    (folder / "config.json").write_text(json.dumps({"name": "run"}), encoding="utf-8")
    (folder / "metrics.jsonl").write_text(rows, encoding="utf-8")
    return folder


def test_a_last_line_that_was_cut_off_is_left_out(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path, '{"step": 1, "kind": "train", "loss": 2.0}\n{"step": 2, "ki'))
    assert run.series("loss", "train").values == (2.0,)
    assert run.last_step == 1


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"config\.json is missing"):
        read_run(tmp_path)
