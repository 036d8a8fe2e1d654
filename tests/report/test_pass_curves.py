"""pass@k over k from summaries of `fapo eval`, and the watched page."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from fapo.cli import report as command
from fapo.errors import DataError
from fapo.report import write_report
from fapo.report.pass_curves import read_pass_curves
from tests.support.command_line import fapo
from tests.support.processes import wait_for
from tests.support.run_folders import policy_rows, write_run

SUMMARY: dict[str, Any] = {
    "policy": "p<b>",
    "judge": "j",
    "pass_at": {"1": 0.5, "2": 0.75, "4": 0.9},
    "pass_at_interval": {"1": [0.4, 0.6], "2": [0.6, 0.8], "4": [0.8, 0.95]},
    "verified_pass_at": {"1": 0.25, "2": 0.5, "4": 0.75},
    "verified_pass_at_interval": {"1": [0.2, 0.3], "2": None, "4": [0.6, 0.8]},
}


def written(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps(SUMMARY | changes))
    return path


def test_curves_of_an_evaluation(tmp_path: Path) -> None:
    (found,) = read_pass_curves([written(tmp_path / "e.json")])
    assert (found.policy, found.judge, found.sizes) == ("p<b>", "j", (1, 2, 4))
    assert [(curve.name, curve.values) for curve in found.curves] == [
        ("pass@k", (0.5, 0.75, 0.9)),
        ("verified", (0.25, 0.5, 0.75)),
    ]
    assert found.curves[1].intervals == ((0.2, 0.3), None, (0.6, 0.8))
    assert (found.panel.title, found.panel.axis) == ("pass@k, p<b>", "k")
    html = write_report([], tmp_path / "page.html", evaluations=[tmp_path / "e.json"]).read_text(encoding="utf-8")
    line = "<tr><th>p&lt;b&gt;, judged by j</th><td>1</td><td>50.0 % <i>[40.0, 60.0]</i></td>"
    assert f"{line}<td>25.0 % <i>[20.0, 30.0]</i></td></tr>" in html
    assert "Every metric" not in html


def test_an_evaluation_without_a_judge_has_one_curve(tmp_path: Path) -> None:
    empty = dict.fromkeys(SUMMARY["pass_at"])
    (found,) = read_pass_curves([written(tmp_path / "e.json", judge=None, verified_pass_at=empty)])
    assert [curve.name for curve in found.curves] == ["pass@k"]
    html = write_report([], tmp_path / "page.html", evaluations=[tmp_path / "e.json"]).read_text(encoding="utf-8")
    assert "<td>4</td><td>90.0 % <i>[80.0, 95.0]</i></td><td>–</td></tr>" in html


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"pass_at": {"1": null}}', '{"pass_at": 3}'])
def test_files_that_are_no_summaries(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "e.json").write_text(content)
    with pytest.raises(DataError, match=r"e\.json: .*give the \.json file that `fapo eval` writes"):
        read_pass_curves([tmp_path / "e.json"])


def test_a_watched_page_follows_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = policy_rows("fapo", steps=20)
    run, page = write_run(tmp_path / "run", {"kind": "fapo"}, rows[:5]), tmp_path / "page.html"
    monkeypatch.setattr(command, "POLL", 0.02)

    def has(text: str) -> bool:
        return page.exists() and text in page.read_text(encoding="utf-8")

    def train() -> None:
        try:
            wait_for(lambda: has("(3 steps)"))
            (run / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            (run / "new.jsonl").replace(run / "metrics.jsonl")
            wait_for(lambda: has("(20 steps)"))
            reloads.append(has('data-seconds="30"'))
        finally:
            (run / "model").mkdir()

    reloads: list[bool] = []
    trainer = threading.Thread(target=train)
    trainer.start()
    assert fapo(monkeypatch, "report", run, "--watch", "-o", page) == 0
    trainer.join()
    assert reloads == [True]
    assert has("(20 steps)") and not has("data-seconds") and not has("location.reload")
