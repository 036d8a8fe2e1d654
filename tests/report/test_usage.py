"""Tokens and cost of the judge, and their table on the page."""

from __future__ import annotations

from pathlib import Path

from fapo.report import read_run, write_report
from fapo.report.usage import JudgeUsage, judge_usages
from tests.support.run_folders import write_run

STEP = {"judge/requests": 600, "judge/prompt_tokens": 10_000, "judge/cached_tokens": 4000, "judge/completion_tokens": 7}


def test_sums_over_steps_and_validations(tmp_path: Path) -> None:
    rows = [
        {"step": 0, "kind": "validation", "easy/accuracy": 0.5, "easy/judge/requests": 10, "easy/judge/cost": 0.5},
        {"step": 1, "kind": "train", **STEP, "judge/from_cache": 3, "judge/cost": 1.0, "judge/tokens": 99.0},
        {"step": 1, "kind": "train", "audit/requests": 4, "audit/num": 9},
        {"step": 2, "kind": "train", **STEP, "judge/cost": None},
    ]
    folders = [
        write_run(tmp_path / "paid", {"kind": "fapo"}, rows),
        write_run(tmp_path / "free", {"kind": "fapo"}, [{"step": 1, "kind": "train", **STEP}]),
        write_run(tmp_path / "without", {"kind": "outcome"}, [{"step": 1, "kind": "train", "judge/tokens": 9.0}]),
    ]
    assert judge_usages([read_run(folder) for folder in folders]) == [
        JudgeUsage("paid", (1210, 20_000, 8000, 14, 3), 1.5),
        JudgeUsage("paid, second judge", (4, 0, 0, 0, 0), None),
        JudgeUsage("free", (600, 10_000, 4000, 7, 0), None),
    ]
    html = write_report(folders, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<tr><th>paid</th><td>1,210</td><td>20,000</td><td>8,000</td><td>14</td><td>3</td><td>1.5</td></tr>" in html
    assert "<tr><th>free</th><td>600</td><td>10,000</td><td>4,000</td><td>7</td><td>0</td><td>–</td></tr>" in html
    alone = write_report(folders[2:], tmp_path / "alone.html").read_text(encoding="utf-8")
    assert "Tokens of the judge" not in alone
