"""Rollouts for the page: classes, sharing out, packing; labels by hand against verdicts."""

from __future__ import annotations

import base64
import gzip
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fapo.errors import DataError
from fapo.judge.quality import cohen_kappa
from fapo.report import read_run, write_report
from fapo.report.human_review import Agreement, agreements, read_labels
from fapo.report.rollouts import ShownRollout, named_policies, pack, sampling_rate, shown_rollouts
from fapo.report.text import visible
from tests.support.run_folders import HOSTILE, rollout, rollouts, write_run


def run_with(folder: Path, rows: list[dict], kind: str = "fapo") -> Path:
    return write_run(folder, {"kind": kind}, [], rows)


def unpack(packed: str) -> dict[str, list[Any]]:
    table = json.loads(gzip.decompress(base64.b64decode(packed)))
    return {k: v if isinstance(v, list) else [v["names"][i] for i in v["rows"]] for k, v in table.items()}


# --- rollouts ---------------------------------------------------------------------------------------------------------

SKIPPED = {"status": "skipped", "flawed": None, "error_step": None}


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({}, "flawed"),
        ({"error_step": None, "flawed": False}, "fully_correct"),  # the oracle disagrees, but the judge is what earns
        ({"correct": False, "reward": -1.0}, "wrong"),  # flagged too, where all are judged
        ({"reward": None, "status": "failed", "flawed": None, "error_step": None}, "unscored"),
        ({"reward": 1.0, "status": "unparsable", "flawed": None, "error_step": None}, "unscored"),
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


@pytest.mark.parametrize(
    "changes",
    [
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
    rate = sampling_rate([run], 500)
    assert rate == 500 / 2000
    found = list(shown_rollouts("r", run, rate))
    assert 300 < len(found) < 700
    groups = [shown.key[:4] for shown in found]
    assert {groups.count(group) for group in groups} == {4}
    assert sampling_rate([run], 5000) == 1.0 and len(list(shown_rollouts("r", run))) == 2000


def test_runs_of_one_name_go_by_their_folders(tmp_path: Path) -> None:
    paths = [run_with(tmp_path / place / "r", []) for place in "ab"]
    runs = [read_run(path) for path in (*paths, run_with(tmp_path / "other", []))]
    judge = read_run(write_run(tmp_path / "judge", {"kind": "genrm_step"}, []))
    assert list(named_policies([*runs, judge])) == [str(paths[0]), str(paths[1]), "other"]


def test_text_is_cut_before_it_is_escaped(tmp_path: Path) -> None:
    html = write_report([run_with(tmp_path / "r", [])], tmp_path / "page.html", title="<" * 300).read_text("utf-8")
    assert f"<h1>{'&lt;' * 200} … (100 more characters)</h1>" in html


# --- labels by hand ---------------------------------------------------------------------------------------------------


def label(number: int, error_step: int | None, **changes: Any) -> dict:
    steps = ["fine"] * 3 if error_step is None else ["fine"] * error_step + ["flawed"]
    row = {"run": "r", "split": "train", "step": 1, "problem_id": f"miniature-{number}", "sample": 0}
    return {**row, "steps": steps, "error_step": error_step, **changes}


def write_labels(path: Path, labels: list[dict], **changes: Any) -> Path:
    path.write_text(json.dumps({"schema": 1, "seed": 0, "drawn": 50, "labels": labels, **changes}))
    return path


def test_agreement_by_hand(tmp_path: Path) -> None:
    judged_and_true = [(1, 1), (1, 2), (0, None), (None, None), (None, 1), (None, None)]
    rows = [rollout(1, i, judged, true) for i, (judged, true) in enumerate(judged_and_true)]
    rows[5] |= {"status": "failed", "flawed": None, "reward": None}
    by_hand = [1, 2, None, None, 1, 0]
    labels = write_labels(tmp_path / "labels.json", [label(i, step) for i, step in enumerate(by_hand)])
    folder = run_with(tmp_path / "r", rows)
    judge, oracle = agreements(labels, [read_run(folder)])
    # five have a verdict: both flawed 2, judge alone 1, human alone 1, both fine 1
    kappa = (3 / 5 - 13 / 25) / (1 - 13 / 25)
    assert judge == Agreement("r", "judge", 5, 1, 3, 3, 3, (1, 2), pytest.approx(kappa))
    assert judge.ratios == (3 / 5, 3 / 5)
    assert oracle == Agreement("r", "oracle", 6, 0, 3, 4, 5, (3, 3), pytest.approx((5 / 6 - 1 / 2) / (1 / 2)))
    html = write_report([folder], tmp_path / "page.html", human=labels).read_text(encoding="utf-8")
    assert "<th>judge, r</th><td>60.0 % <i>[23.1, 88.2]</i></td>" in html
    assert html.count("<td>1 of 2</td><td>5</td><td>1</td>") == 1


@pytest.mark.parametrize(
    ("labels", "changes", "told"),
    [
        ([label(0, 1)], {"schema": 2}, "schema"),
        ([label(0, 1)], {"extra": 1}, "extra"),
        ([label(0, 1, steps=["fine", "good"])], {}, r"labels\.0\.steps\.1"),
        ([label(0, None) | {"error_step": 1}], {}, r"labels\.0: error_step 1, but the steps say None"),
        ([label(7, 1)], {}, r"no rollout 0 of miniature-7 \(train, step 1\) in run r; give the run folders"),
        ([label(0, 1, run="other")], {}, "in run other"),
    ],
)
def test_labels_of_something_else(tmp_path: Path, labels: list[dict], changes: dict, told: str) -> None:
    run = read_run(run_with(tmp_path / "r", [rollout(1, 0, 1, 1)]))
    with pytest.raises(DataError, match=rf"labels\.json: .*{told}"):
        agreements(write_labels(tmp_path / "labels.json", labels, **changes), [run])


@pytest.mark.parametrize("content", [None, "{", "[]", "\xff"])
def test_files_that_are_no_labels(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "labels.json"
    if content is not None:
        path.write_text(content, encoding="latin-1")
    with pytest.raises(DataError, match=r"labels\.json: .*export"):
        read_labels(path)


def test_kappa() -> None:
    # 45 and 15 of 100 alike, 25 and 15 not
    first, second = [True] * 70 + [False] * 30, [True] * 45 + [False] * 25 + [True] * 15 + [False] * 15
    assert cohen_kappa(first, second) == pytest.approx((0.60 - 0.54) / (1 - 0.54))
    assert cohen_kappa([True, False], [True, False]) == 1.0
    assert cohen_kappa([True, False], [False, True]) == -1.0
    assert all(value != value for value in (cohen_kappa([], []), cohen_kappa([True] * 3, [True] * 3)))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_kappa_is_symmetric_and_at_most_one(pairs: list[tuple[bool, bool]]) -> None:
    first, second = zip(*pairs, strict=True)
    kappa = cohen_kappa(first, second)
    if kappa == kappa:
        assert kappa == pytest.approx(cohen_kappa(second, first)) and -1 - 1e-9 <= kappa <= 1 + 1e-9
        assert (kappa == pytest.approx(1)) == (first == second)


def test_the_page_says_what_it_holds(tmp_path: Path) -> None:
    folder = run_with(tmp_path / "r", rollouts())
    whole = write_report([folder], tmp_path / "page.html").read_text(encoding="utf-8")
    assert f"Here are all {len(rollouts())} rollouts" in whole
    none = write_report([folder], tmp_path / "page.html", num_rollouts=0).read_text(encoding="utf-8")
    assert "<script" not in none and "script-src" not in none
