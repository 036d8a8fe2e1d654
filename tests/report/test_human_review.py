"""Labels made by hand: reading them, and their agreement with judge and oracle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fapo.errors import DataError
from fapo.evaluation.intervals import decimal, difference_interval, f1_interval, percent_of, wilson_interval
from fapo.report import read_run, write_report
from fapo.report.agreement import Agreement
from fapo.report.human_review import JudgeRates, agreements, judge_rates, read_labels, text_hash
from tests.support.command_line import fapo
from tests.support.run_folders import rollout, write_run


def run_with(folder: Path, rows: list[dict]) -> Path:
    """Write a run with rollouts."""
    return write_run(folder, {"kind": "fapo"}, [], rows)


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
    around = tuple(wilson_interval(3, 5) for _ in range(3))
    assert judge == Agreement("judge, r", 5, 1, (3, 3), 3, (1, 2), pytest.approx(kappa), around)
    assert judge.ratios == (3 / 5, 3 / 5)
    around = tuple(wilson_interval(k, 6) for k in (3, 4, 5))
    assert oracle == Agreement("oracle, r", 6, 0, (3, 4), 5, (3, 3), pytest.approx((5 / 6 - 1 / 2) / (1 / 2)), around)
    html = write_report([folder], tmp_path / "page.html", human=labels).read_text(encoding="utf-8")
    assert "<th>judge, r</th><td>60.0 % <i>[23.1, 88.2]</i></td>" in html
    assert html.count("<td>1 of 2</td><td>5</td><td>1</td>") == 1


def test_labels_of_rollouts_that_a_resumed_run_has_written_anew_do_not_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [rollout(1, i, 1, 1, response=f"{i}+1=2\n\nso \\boxed{{5}}") for i in range(3)]
    steps = ["1+1=2", "so \\boxed{5}"]
    labels = [label(i, 1, text_hash=text_hash(steps)) for i in (1, 2)] + [label(0, 1)]
    found = agreements(write_labels(tmp_path / "labels.json", labels), [read_run(run_with(tmp_path / "r", rows))])
    assert [row.num for row in found] == [2, 2], "rollout 2 has another text; 0 is a label of an older page"
    assert "1 of 3 labels do not count" in caplog.text
    assert "rollout 0 of miniature-2 (train, step 1) in run r" in caplog.text


def test_as_many_flagged_as_cleared_rollouts_measure_no_recall(tmp_path: Path, caplog) -> None:
    folder = run_with(tmp_path / "r", [rollout(1, i, judged, None) for i, judged in enumerate((1, None))])
    made = [label(0, 1), label(1, None)]
    drawn_from_all = write_labels(tmp_path / "all.json", made)
    assert [rates.found.recall for rates in judge_rates(drawn_from_all, [read_run(folder)])] == [1.0, 1.0]
    balanced = write_labels(tmp_path / "balanced.json", made, balanced=True)
    assert judge_rates(balanced, [read_run(folder)]) == []
    assert "balanced.json: as many flagged as cleared rollouts were drawn" in caplog.text
    assert [row.of for row in agreements(balanced, [read_run(folder)])][:1] == ["judge, r, as many flagged as cleared"]


FOUND = [(True, True)] * 9 + [(False, True)] * 5 + [(True, False)] * 3 + [(False, False)] * 11
"""Flags of a judge and of a person; 9 true positives, 5 false negatives, 3 false positives, 11 true negatives."""


def rates_of(found: list[tuple[bool, bool]], problems: list[str]) -> list[str]:
    """Return recall, false positive rate, J and F1 with their intervals as the command prints them."""
    flagged, flawed = zip(*found, strict=True)
    return list(JudgeRates("r", (1, 4), flagged, flawed, tuple(problems)).row()[3:])


def test_rates_of_one_rollout_of_each_problem_are_of_independent_rollouts() -> None:
    assert rates_of(FOUND, [f"{i}?" for i in range(28)]) == [
        percent_of(9, 14),
        percent_of(3, 14),
        decimal(9 / 14 - 3 / 14, difference_interval(9, 14, 3, 14)),
        decimal(18 / 26, f1_interval(9, 3, 5)),
    ]


def test_further_rollouts_of_a_problem_that_say_the_same_make_the_rates_no_more_certain() -> None:
    def widths(found: list[tuple[bool, bool]], problems: list[str]) -> list[float]:
        ends = [cell[cell.index("[") + 1 : -1].split(", ") for cell in rates_of(found, problems)]
        return [float(high) - float(low) for low, high in ends]

    single = widths(FOUND, [f"{i}?" for i in range(28)])
    assert widths(FOUND * 6, [f"{i}?" for i in range(28)] * 6) == pytest.approx(single, rel=0.05)
    as_independent = widths(FOUND * 6, [f"{i}?" for i in range(168)])
    assert all(narrow < 0.5 * wide for narrow, wide in zip(as_independent, single, strict=True))


def test_rollouts_of_a_problem_at_several_steps_are_not_independent(tmp_path: Path) -> None:
    rows = [rollout(step, i, 1 if i < 3 else None, None) for step in (1, 2, 3, 4) for i in range(6)]
    labels = [label(i, 1 if i % 2 else None, step=step) for step in (1, 2, 3, 4) for i in range(6)]
    found = judge_rates(write_labels(tmp_path / "labels.json", labels), [read_run(run_with(tmp_path / "r", rows))])
    assert [(rates.steps, rates.found.n, len(set(rates.problems))) for rates in found[-2:]] == [
        ((4, 4), 6, 6),
        ((1, 4), 24, 6),
    ]
    alone, together = (rates.row() for rates in found[-2:])
    assert alone[3] == percent_of(1, 3)
    assert together[3] != percent_of(4, 12) and together[3].startswith("33.3 % [")


def test_the_hash_of_a_text_is_that_of_the_page() -> None:
    assert text_hash([]) == "811c9dc5"
    assert text_hash(["foo", " b\nar"]) == "bf9cf968"  # published value of FNV-1a for "foobar"
    assert text_hash(["\U0001f600"]) == text_hash(["\U0001f600\t"]) != text_hash(["\U0001f601"])


@pytest.mark.parametrize(
    ("labels", "changes", "message"),
    [
        ([label(0, 1)], {"schema": 2}, "schema"),
        ([label(0, 1)], {"extra": 1}, "extra"),
        ([label(0, 1, steps=["fine", "good"])], {}, r"labels\.0\.steps\.1"),
        ([label(0, None) | {"error_step": 1}], {}, r"labels\.0: error_step 1, but the steps say None"),
        ([label(7, 1)], {}, r"no rollout 0 of miniature-7 \(train, step 1\) in run r; give the run folders"),
        ([label(0, 1, run="other")], {}, "in run other"),
    ],
)
def test_labels_of_something_else(tmp_path: Path, labels: list[dict], changes: dict, message: str) -> None:
    run = read_run(run_with(tmp_path / "r", [rollout(1, 0, 1, 1)]))
    with pytest.raises(DataError, match=rf"labels\.json: .*{message}"):
        agreements(write_labels(tmp_path / "labels.json", labels, **changes), [run])


@pytest.mark.parametrize("content", [None, "{", "[]", "\xff"])
def test_files_that_are_no_labels(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "labels.json"
    if content is not None:
        path.write_text(content, encoding="latin-1")
    with pytest.raises(DataError, match=r"labels\.json: .*export"):
        read_labels(path)


def test_a_page_does_not_take_the_place_of_the_labels(tmp_path: Path, monkeypatch, capsys) -> None:
    folder = run_with(tmp_path / "r", [rollout(1, 0, 1, None)])
    labels = write_labels(tmp_path / "labels.json", [label(0, 1)])
    before = labels.read_text()
    assert fapo(monkeypatch, "report", folder, "--human", labels, "-o", labels) == 2
    assert "labels.json: is one of the files to read" in capsys.readouterr().err
    assert labels.read_text() == before
