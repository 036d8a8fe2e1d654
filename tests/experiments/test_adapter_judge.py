"""The study of a policy that judges itself, at the smallest size."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from experiments.adapter_judge import ARMS, COLUMNS, LORA, measure, print_windows, windows
from experiments.cotraining import Sizes, known_quality, print_ends
from fapo.data.jsonl import write_jsonl
from fapo.data.miniature.sets import BASE_FOLDER

SMALL = Sizes(steps=2, prompts=2, judge_steps=1, judge_prompts=2, limit=16, judged=8, tested=32)


def test_a_judge_is_measured_on_each_ten_steps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flaws = {False: {"error_step": None}, True: {"error_step": 0}}

    def row(step: int, flawed: bool, flagged: bool | None) -> dict[str, Any]:
        return {"split": "train", "correct": True, "step": step, "flawed": flagged, "truth": flaws[flawed]}

    early = [row(1, True, True), row(10, False, False)]
    late = [row(11, True, True), row(11, True, None), row(15, False, False), row(15, False, True)]
    ignored = [{**row(1, True, False), "correct": False}, {**row(10, True, False), "split": "validation"}]
    write_jsonl(tmp_path / "rollouts.jsonl", [*early, *late, *ignored])
    found = windows(tmp_path, 15)
    assert {window: (rates.n, rates.youden_j, rates.invalid_rate) for window, rates in found.items()} == {
        "1-10": (2, 1.0, 0.0),
        "11-15": (4, 0.0, 0.25),
    }
    print_windows(Console(width=400), {"base": [tmp_path, tmp_path]}, 15)
    last = capsys.readouterr().out.splitlines()[-2]
    assert [cell.strip()[:4] for cell in last.split("|")[1:-1]] == ["base", "11-1", "0.50", "0.50", "0.25", "0.00"]


@pytest.mark.slow
def test_arms_differ_in_their_judge_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = tmp_path / "start"
    shutil.copytree(BASE_FOLDER / "policy", start)  # it solves as the start of the study does
    found = {name: {0: measure(tmp_path, name, 0, SMALL, 1e-3)} for name in ARMS}

    def config(run: str) -> dict[str, Any]:
        table: dict[str, Any] = json.loads((tmp_path / run / "config.json").read_text())
        return table

    def others(run: str) -> dict[str, Any]:
        table = config(run)
        return table | {"output": None, "judge": table["judge"] | {"model": None}}

    own = tmp_path / "own-0/judge/model"
    judges = {name: config(f"{name}-0/run")["judge"] for name in ARMS}
    assert {name: (judge["kind"], judge["model"]) for name, judge in judges.items()} == {
        "base": ("adapter", "base"),
        "policy": ("adapter", "policy"),
        "own": ("adapter", str(own)),
    }
    assert others("policy-0/run") == others("own-0/run") == others("base-0/run")
    for run in ("base-0/run", "own-0/judge"):
        table = config(run)
        lora = table["model"]["lora"]
        assert table["model"]["path"] == str(start)
        assert (f"model.lora.rank={lora['rank']}", f"model.lora.alpha={lora['alpha']}") == LORA
        assert table["optim"]["learning_rate"] == 1e-3
    assert json.loads((own / "adapter_config.json").read_text())["base_model_name_or_path"] == str(start)

    base = found["base"][0]
    assert 0.2 < base.accuracy < 0.7
    assert base.reliable_accuracy == pytest.approx(base.accuracy * (1 - base.true_fp_ratio))
    assert base.judge_j == pytest.approx(known_quality(start, SMALL.judged).youden_j, nan_ok=True)
    assert found["own"][0].seconds > base.seconds / 2 > 0
    measured = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/processor_time.json")}
    assert len(measured) == 4
    again = {name: {0: measure(tmp_path, name, 0, SMALL, 1e-3)} for name in ARMS}
    assert json.dumps([asdict(again[name][0]) for name in ARMS]) == json.dumps(
        [asdict(found[name][0]) for name in ARMS]
    )
    assert {path: path.stat().st_mtime_ns for path in measured} == measured

    print_ends(Console(width=400), found, COLUMNS, "base")
    printed = capsys.readouterr().out
    assert printed.count("| own") == 2
    assert printed.count("| base") == 1
    assert "minus base, same seeds" in printed
