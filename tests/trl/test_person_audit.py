"""A person audits the judge of a real run: drawn in training, labelled on the page, and the rates that are printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fapo.config.reader import from_dict
from fapo.evaluation.intervals import decimal, percent, wilson_interval
from fapo.judge.quality import flawed_positive_prf
from fapo.report.browser import make_browser
from fapo.report.human_review import BLOCKS, judge_rates
from fapo.report.rollouts import shown_rollouts
from fapo.training.run_reader import read_run
from fapo.trl.train import train
from tests.support.command_line import fapo
from tests.support.trl_runs import rows, settings

pytestmark = pytest.mark.slow
STEPS, RATE = 4, 0.5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train with a judge that misses half of the flaws, and return the run folder."""
    audit = {"judge": {"kind": "person"}, "rate": RATE}
    changed = {
        "rollout": {"max_tokens": 64, "num_prompts": 12, "group_size": 8},
        "optim": {"steps": STEPS, "learning_rate": 2e-4},
        "judge": {"kind": "oracle", "false_negative_rate": 0.5, "audit": audit},
        "data.limit": None,
        "validation.every": STEPS,
    }
    return train(from_dict(settings(tmp_path_factory.mktemp("person"), Path("miniature:policy"), **changed)))


def labels_of_the_oracle(folder: Path) -> list[dict[str, Any]]:
    """Return the labels that the page would export, by the oracle, for all rollouts that the audit has drawn."""
    found = []
    for r in shown_rollouts("run", read_run(folder)):
        if r.audited:
            steps = ["fine"] * len(r.steps) if r.true is None else ["fine"] * r.true + ["flawed"]
            key = {"run": r.run, "split": r.split, "step": r.step, "problem_id": r.problem_id, "sample": r.sample}
            found.append({**key, "steps": steps, "error_step": r.true})
    return found


def test_the_page_draws_what_the_audit_has_drawn(folder: Path) -> None:
    drawn = rows(folder, "audit")
    judged = [row for row in rows(folder, "rollouts") if row["split"] == "train" and row["correct"]]
    assert 0.3 < len(drawn) / len(judged) < 0.7
    labels = labels_of_the_oracle(folder)
    assert [(row["step"], row["problem_id"]) for row in drawn] == [(k["step"], k["problem_id"]) for k in labels]
    few = make_browser([read_run(folder)], 20)
    assert few and few.num_rollouts >= len(drawn), "they are on a page that has a random choice of the others"


def test_the_rates_of_the_judge_by_the_labels_are_printed_by_steps(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, labels = tmp_path / "labels.json", labels_of_the_oracle(folder)
    file.write_text(json.dumps({"schema": 1, "seed": 0, "drawn": len(labels), "labels": labels}), encoding="utf-8")
    assert fapo(monkeypatch, "report", folder, "-o", tmp_path / "page.html", "--human", file) == 0
    printed = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("| run ")]
    table = [[cell.strip() for cell in row] for row in printed][1:]
    audits = rows(folder, "audit")
    assert STEPS == BLOCKS, "each step is a block"
    assert [row[1] for row in table] == ["1-1", "2-2", "3-3", "4-4", "1-4"]
    for row, rates in zip(table, judge_rates(file, [read_run(folder)]), strict=True):
        first, last = map(int, row[1].split("-"))
        mine = [i for i, audit in enumerate(audits) if first <= audit["step"] <= last]
        flawed = [labels[i]["error_step"] is not None for i in mine]
        found = flawed_positive_prf([audits[i]["judge"]["flawed"] for i in mine], flawed)
        assert rates.found == found
        assert int(row[2]) == len(mine)
        assert rates.problems == tuple(audits[i]["problem"] for i in mine)
        values = percent(found.recall), percent(0.0), decimal(found.youden_j), decimal(found.f1)
        assert [cell.partition(" [")[0] for cell in row[3:]] == list(values)
        num_fine = len({audits[i]["problem"] for i, is_flawed in zip(mine, flawed, strict=True) if not is_flawed})
        assert row[4] == percent(0.0, wilson_interval(0, num_fine)), "of problems, since these have several rollouts"
    assert 0.3 < judge_rates(file, [read_run(folder)])[-1].found.recall < 0.7
