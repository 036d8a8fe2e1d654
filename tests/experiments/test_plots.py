"""The picture of the README: six plots of a judge and of policies."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from experiments.plots import main, overview, overview_panels
from fapo.training.run_reader import Run, read_run
from tests.support.run_folders import genrm_rows, policy_rows, write_run


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """A baseline, FAPO and a GenRM."""
    policies = ({"kind": "outcome"}, {"kind": "fapo", "penalty": 1.0})
    runs = [write_run(tmp_path / reward["kind"], reward, policy_rows(reward["kind"])) for reward in policies]
    return [*runs, write_run(tmp_path / "genrm", {"kind": "genrm_step"}, genrm_rows(1.0), task="genrm")]


def test_the_overview_has_six_plots(folders: list[Path]) -> None:
    assert len(overview_panels([read_run(path) for path in folders])) == 6


def test_the_command_writes_a_png(folders: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = tmp_path / "demo.png"
    monkeypatch.setattr(sys, "argv", ["plots", *map(str, folders), "-o", str(picture)])
    main()
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_run_without_measurements_is_drawn(tmp_path: Path) -> None:
    assert overview([Run("run", tmp_path, {}, ())]).startswith(b"\x89PNG")
