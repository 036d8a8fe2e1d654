"""Times of training steps, and their table on the page."""

from __future__ import annotations

from pathlib import Path

from fapo.report import read_run, write_report
from fapo.report.timing import TimeSplit, time_splits
from tests.support.run_folders import write_run


def test_time_split(tmp_path: Path) -> None:
    rows = [
        {"step": s, "kind": "train", "time/rollout": 3.0 * s, "time/score": 1.0, "time/update": 1.0} for s in (1, 3)
    ]
    folders = [
        write_run(tmp_path / "timed", {"kind": "fapo"}, rows),
        write_run(tmp_path / "not", {"kind": "outcome"}, [{"step": 1, "kind": "train", "loss": 0.0}]),
    ]
    assert time_splits([read_run(folder) for folder in folders]) == [TimeSplit("FAPO", 6.0, 1.0, 1.0)]
    html = write_report(folders, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<th>FAPO</th><td>75 %</td><td>12 %</td><td>12 %</td><td>8.00 s</td>" in html
