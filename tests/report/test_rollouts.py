"""Rollouts for the page: classes, the random choice, and packing."""

from __future__ import annotations

import base64
import gzip
import json
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from fapo.data.solutions import Solution, read_solutions
from fapo.data.trajectory import judged_steps
from fapo.judge.template import load_template
from fapo.report import read_run, write_report
from fapo.report.rollouts import ShownRollout, named_policies, pack, sampling_rate, shown_rollouts
from fapo.report.text import visible
from fapo.training.rollout_row import rollout_row
from fapo.training.run_reader import Run
from fapo.types import Given, Problem, Reward, Rollout, ScoredRollout
from tests.support.run_folders import HOSTILE, rollout, rollouts, write_run


def run_with(folder: Path, rows: list[dict], kind: str = "fapo") -> Path:
    return write_run(folder, {"kind": kind}, [], rows)


def unpack(packed: str) -> dict[str, list[Any]]:
    table = json.loads(gzip.decompress(base64.b64decode(packed)))
    return {k: v if isinstance(v, list) else [v["names"][i] for i in v["rows"]] for k, v in table.items()}


SKIPPED = {"status": "skipped", "flawed": None, "error_step": None}


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, "flawed"),
        ({"error_step": None, "flawed": False}, "fully_correct"),  # the oracle disagrees, but the judge is what earns
        ({"correct": False, "reward": -1.0}, "wrong"),  # flagged too, where all are judged
        ({"reward": None, "status": "failed", "flawed": None, "error_step": None}, "unscored"),
        ({"reward": 1.0, "status": "unparsable", "flawed": None, "error_step": None}, "unscored"),
        ({"correct": False, "reward": None, **SKIPPED}, "unscored"),  # the checker failed
        ({"reward": 1.0, **SKIPPED}, "flawed"),  # no judge: the oracle's word
        ({"reward": 1.0, **SKIPPED, "truth": {"error_step": None, "flaw": None}}, "fully_correct"),
        ({"reward": 1.0, **SKIPPED, "truth": None}, "fully_correct"),
    ],
)
def test_classes(tmp_path: Path, changes: dict, kind: str) -> None:
    (shown,) = shown_rollouts("r", read_run(run_with(tmp_path / "r", [rollout(3, 1, 1, 1) | changes])))
    assert shown.kind == kind
    assert shown.key == ("r", "train", 3, "miniature-1", 0)


def test_a_rollout_is_cut_into_the_steps_of_the_judge(tmp_path: Path) -> None:
    (shown,) = shown_rollouts("r", read_run(run_with(tmp_path / "r", [rollout(3, 1, 1, 0)])))
    assert shown.steps == ("18+8=26", "26*3=66", "\\boxed{5}")
    assert (shown.judged, shown.known, shown.true, shown.flaw) == (1, True, 0, "slip")


def test_all_turns_are_shown(tmp_path: Path) -> None:
    turns = ("1+1=2\n\nTool call: f(2)", Given("26\n\n"))
    scored = ScoredRollout(Rollout(Problem("p", "?", "5"), "\\boxed{5}", earlier_turns=turns), True, None, Reward(1.0))
    row = rollout(3, 1, 1, 0) | rollout_row(scored, 0.0, None)
    (shown,) = shown_rollouts("r", read_run(run_with(tmp_path / "r", [row])))
    assert shown.steps == ("1+1=2", "Tool call: f(2)", "[given] 26", "\\boxed{5}")
    (audited,) = read_solutions(tmp_path / "r" / "rollouts.jsonl")
    assert isinstance(audited, Solution)
    assert audited.steps == tuple(judged_steps(scored.rollout, "paragraphs"))


@pytest.mark.parametrize(
    ("judge", "prompt", "num"),
    [
        ({}, None, 1),
        ({"template": "compact"}, None, 2),
        ({"template": "compact", "steps": "paragraphs"}, None, 1),
        ({"steps": "lines"}, None, 2),
        ({"template": "gone.txt"}, None, 1),
        ({"template": "gone.txt"}, replace(load_template("locate"), steps="lines").file_text, 2),
        ({"template": "gone.txt"}, "no template at all", 1),
    ],
)
def test_steps_without_an_oracle_are_those_of_the_run_s_judge(
    judge: dict[str, str], prompt: str | None, num: int, tmp_path: Path
) -> None:
    folder = run_with(tmp_path / "r", [rollout(3, 1, 1, 0) | {"response": "one\ntwo", "truth": None}])
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"judge": {"kind": "local", **judge}}))
    if prompt is not None:
        (folder / "prompts.json").write_text(json.dumps({"judge.template": prompt}))
    (shown,) = shown_rollouts("r", read_run(folder))
    assert len(shown.steps) == num


def test_steps_of_a_run_with_a_cascade_are_those_of_its_judges(tmp_path: Path) -> None:
    folder = run_with(tmp_path / "r", [rollout(3, 1, 1, 0) | {"response": "one\ntwo", "truth": None}])
    config = json.loads((folder / "config.json").read_text())
    judge = {"kind": "cascade", "cheap": {"kind": "prm"}, "strong": {"kind": "local", "steps": "lines"}}
    (folder / "config.json").write_text(json.dumps(config | {"judge": judge}))
    (folder / "prompts.json").write_text(json.dumps({"judge.strong.template": load_template("locate").file_text}))
    (shown,) = shown_rollouts("r", read_run(folder))
    assert len(shown.steps) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"trajectory": [{"role": "tool", "content": 5}]},
        {"response": "a" * 300_000, "critique": "b" * 300_000},
        {"error_step": -4, "truth": {"error_step": -4, "flaw": 3}},
        {"truth": None, "critique": None, "reference": None, "problem": None, "advantage": "x"},
        {"truth": "yes", "step": None, "split": None, "problem_id": [1], "reward": 1e999, "num_tokens": "n"},
    ],
)
def test_odd_rollouts_are_shown_all_the_same(tmp_path: Path, changes: dict) -> None:
    odd = {"schema": 1, "correct": True, "flawed": True, "response": ""}
    rows = [rollout(1, 1, 1, 1) | changes, odd, {}, {"correct": True, "flawed": True, "response": None}]
    found = list(shown_rollouts("r", read_run(run_with(tmp_path / "run", rows))))
    assert len(found) == 2
    assert len(pack(found)) < 5_000
    assert unpack(pack(found))["judged"] == [shown.judged for shown in found]


def test_packed_rollouts_are_nothing_but_letters_and_come_back(tmp_path: Path) -> None:
    row = rollout(1, 1, 1, 1, **dict.fromkeys(("response", "critique", "problem", "problem_id", "reference"), HOSTILE))
    found = list(shown_rollouts(HOSTILE, read_run(run_with(tmp_path / "r", [row]))))
    packed = pack(found)
    assert set(packed) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")
    table = unpack(packed)
    assert table.keys() == {field.name for field in fields(ShownRollout)}
    assert table["critique"] == [visible(HOSTILE)] and "\\u202e" in table["critique"][0]


def test_a_random_choice_keeps_groups_together(tmp_path: Path) -> None:
    rows = [rollout(step, number, 1, 1) for step in range(50) for number in range(10) for _ in range(4)]
    run = read_run(run_with(tmp_path / "r", rows))
    rate = sampling_rate(run.rollout_files, 500)
    assert rate == 500 / 2000
    found = list(shown_rollouts("r", run, rate))
    assert 300 < len(found) < 700
    groups = [shown.key[:4] for shown in found]
    assert {groups.count(group) for group in groups} == {4}
    assert sampling_rate(run.rollout_files, 5000) == 1.0 and len(list(shown_rollouts("r", run))) == 2000


def test_runs_of_one_name_go_by_their_folders(tmp_path: Path) -> None:
    paths = [run_with(tmp_path / place / "r", []) for place in "ab"]
    runs = [read_run(path) for path in (*paths, run_with(tmp_path / "other", []))]
    judge = read_run(write_run(tmp_path / "judge", {"kind": "genrm_step"}, []))
    assert list(named_policies([*runs, judge])) == [str(paths[0]), str(paths[1]), "other"]


def test_the_page_says_what_it_holds(tmp_path: Path) -> None:
    folder = run_with(tmp_path / "r", rollouts())
    whole = write_report([folder], tmp_path / "page.html").read_text(encoding="utf-8")
    assert f"Here are all {len(rollouts())} rollouts" in whole
    none = write_report([folder], tmp_path / "page.html", num_rollouts=0).read_text(encoding="utf-8")
    assert 'id="browser"' not in none and "browse.js" not in none and "Review by hand" not in none


def test_rollouts_that_are_not_shown_do_not_stay_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, drawn = read_run(write_run(tmp_path / "r", {"kind": "fapo"}, [], rollouts())), Counter[tuple[int, str, str]]()
    monkeypatch.setattr(Run, "drawn_for_a_person", lambda _: drawn)
    assert len(list(shown_rollouts("r", run))) == len(rollouts())
    assert not drawn, "the texts of all rollouts were its keys"
