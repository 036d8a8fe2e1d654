"""The page of an audit: its numbers, a second judge, labels made by hand, and text that cannot leave its place."""

from __future__ import annotations

import base64
import gzip
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fapo.data.jsonl import write_jsonl
from fapo.errors import ConfigError, DataError
from fapo.evaluation.audit.settings import AuditSettings
from fapo.evaluation.intervals import ratio_interval, wilson_interval
from fapo.report.audit_page import check_inputs, write_audit
from fapo.report.summary import show_interval
from tests.support.chat_server import Reply, chat_server
from tests.support.command_line import fapo
from tests.support.run_folders import HOSTILE

Row = dict[str, Any]


def solution(number: int, **changes: Any) -> Row:
    steps = ["1+1=2", "2+2=5", "so 5-1=4", "\\boxed{4}"]
    problem = f"{number}: 1+1+2?"
    return {"id": f"q{number}", "source": "easy", "problem": problem, "reference": "4", "steps": steps} | changes


def verdict(number: int, error_step: int | None = None, **changes: Any) -> Row:
    row = {"id": f"q{number}", "source": "easy", "correct": True, "status": "ok", "error_step": error_step}
    row |= {"flawed": error_step is not None, "critique": "Step 1 is wrong: 2+2 is 4, not 5.", "num_steps": 4}
    return row | changes


def audited(folder: Path, solutions: list[Row], verdicts: list[Row]) -> AuditSettings:
    """Return the settings of an audit that is done."""
    write_jsonl(folder / "rows.jsonl", solutions)
    write_jsonl(folder / "verdicts.jsonl", verdicts)
    files, out = (str(folder / "rows.jsonl"),), folder / "verdicts.jsonl"
    return AuditSettings(judge=("http://localhost:1/v1",), model="m", files=files, out=out)


def unpacked(html: str) -> dict[str, list[Any]]:
    """Return the columns of the browser of a page."""
    packed = re.search(r'id="rollouts">([^<]*)<', html)
    assert packed
    columns = json.loads(gzip.decompress(base64.b64decode(packed[1])))
    return {k: v if isinstance(v, list) else [v["names"][i] for i in v["rows"]] for k, v in columns.items()}


SKIPPED = {"correct": False, "status": "skipped", "flawed": None, "critique": ""}
FAILED = {"status": "failed", "flawed": None, "critique": "", "reason": "HTTP 500"}
SOLUTIONS = [solution(i, source="hard" if i > 3 else "easy") for i in range(6)]
VERDICTS = [
    verdict(0, 1),
    verdict(1),
    verdict(2, 3, critique="A guess."),
    verdict(3, **SKIPPED),
    verdict(4, 1, source="hard"),
    verdict(5, source="hard", **FAILED),
]


def test_the_numbers_of_the_page(tmp_path: Path) -> None:
    page = write_audit(audited(tmp_path, SOLUTIONS, VERDICTS), tmp_path / "new" / "audit.html").path
    html = page.read_text(encoding="utf-8")
    assert "5 of 6 solutions have the right answer." in html
    assert "read 4 of these and found a wrong step in 3: 75.0 %" in html
    assert "<tr><th>easy</th><td>66.7 % <i>[20.8, 93.9]</i></td><td>2 of 3</td>" in html
    assert "<tr><th>hard</th><td>100.0 % <i>[20.7, 100.0]</i></td><td>1 of 1</td>" in html
    assert html.count("<td>100.0 % of 2</td><td>50.0 %</td>") == 1
    assert re.search(r"<th>calculation</th>.*?<td>2</td><td>66\.7 %</td>", html)
    assert re.search(r"<th>guess</th>.*?<td>1</td><td>33\.3 %</td>", html)
    assert re.search(r"<th>second</th>.*?<td>2</td><td>66\.7 %</td>", html)
    table = unpacked(html)
    assert table["kind"] == ["flawed", "fully_correct", "flawed", "wrong", "flawed", "unscored"]
    assert table["error_kind"] == ["calculation", "", "guess", "", "calculation", ""]
    assert table["steps"][0] == ["1+1=2", "2+2=5", "so 5-1=4", "\\boxed{4}"]
    assert "Second judge</h2>" not in html and "Judge against human" not in html


def test_rows_that_were_left_out_are_counted(tmp_path: Path) -> None:
    unreadable = [{"steps": "none"}, solution(6, steps=None)]
    left_out = [verdict(0, id=None, source="", correct=None, status="skipped", flawed=None) for _ in unreadable]
    settings = audited(tmp_path, [unreadable[0], *SOLUTIONS, unreadable[1]], [left_out[0], *VERDICTS, left_out[1]])
    html = write_audit(settings, tmp_path / "audit.html").path.read_text(encoding="utf-8")
    assert "5 of 6 solutions have the right answer." in html
    assert "2 rows could not be read and were left out." in html


def test_a_second_judge(tmp_path: Path) -> None:
    options = audited(tmp_path, SOLUTIONS, VERDICTS)
    second = tmp_path / "second.jsonl"
    write_jsonl(second, [verdict(0, 2), verdict(1), verdict(2), verdict(3, 0), verdict(4, 1), verdict(5, 1)])
    check_inputs(options, tmp_path / "audit.html", second, None)
    html = write_audit(options, tmp_path / "audit.html", second=second).path.read_text(encoding="utf-8")
    # q0 to q2 and q4 have two verdicts: flawed for both twice, once at the same step; q2 for the first only
    row = re.search(r"<th>judge and second judge</th>(.*?)</tr>", html)
    assert row
    cells = re.findall(r"<td>(.*?)</td>", re.sub(r" <i>.*?</i>", "", row[1]))
    assert cells == ["75.0 %", "50.0 %", "75.0 %", "0.50", "1 of 2", "4", "1"]
    assert unpacked(html)["second_step"] == [2, None, None, 0, 1, 1]


def test_solutions_of_one_problem_are_not_independent(tmp_path: Path) -> None:
    solutions = [solution(i, source="easy", problem=f"{i // 2}?") for i in range(4)]
    options = audited(tmp_path, solutions, [verdict(0, 1), verdict(1, 1), verdict(2), verdict(3)])
    write_jsonl(tmp_path / "second.jsonl", [verdict(0, 1), verdict(1, 1), verdict(2), verdict(3)])
    page, judges, _ = write_audit(options, tmp_path / "audit.html", second=tmp_path / "second.jsonl")
    html = page.read_text(encoding="utf-8")
    wide = ratio_interval([2, 0], [2, 2])
    assert judges and judges.intervals == (wide, wide, wilson_interval(2, 2))
    assert f"<td>50.0 % <i>{show_interval(wide, 'rate')}</i></td><td>2 of 4</td>" in html
    assert "intervals (over problems, since some have several solutions)" in html


PREDICTIONS = [
    {"id": "q4", "error_step": 1, "judge": "other"},
    {"id": "q2", "error_step": -1},
    {"id": "q1", "flawed": False},
    {"id": "q0", "flawed": True, "error_step": 2, "critique": "x"},
]
"""The verdicts of `test_a_second_judge` on the judged solutions, as predictions in another order."""


def test_a_second_judge_from_predictions(tmp_path: Path) -> None:
    options = audited(tmp_path, [*SOLUTIONS, solution(6)], [*VERDICTS, verdict(6)])
    write_jsonl(tmp_path / "second.jsonl", PREDICTIONS)
    check_inputs(options, tmp_path / "audit.html", tmp_path / "second.jsonl", None)
    page, found, by_hand = write_audit(options, tmp_path / "audit.html", second=tmp_path / "second.jsonl")
    assert found and not by_hand
    assert (found.num, found.num_silent, found.num_agreed, found.num_located) == (4, 2, 3, (1, 2))
    assert found.text() == (
        "judge and second judge: FP ratio 75.0 % [30.1, 95.4] and 50.0 % [15.0, 85.0]; they agree on 3 of 4 "
        "(75.0 % [30.1, 95.4]), kappa 0.50, and name the same step in 1 of 2"
    )
    assert found.as_json()["num_flawed"] == [3, 2] and found.as_json()["kappa"] == 0.5
    html = page.read_text(encoding="utf-8")
    assert unpacked(html)["second"] == [True, False, False, None, True, None, None]


def test_predictions_cannot_be_about_solutions_of_one_id(tmp_path: Path) -> None:
    options = audited(tmp_path, [solution(0), solution(1), solution(0)], [verdict(0, 1), verdict(1), verdict(0)])
    write_jsonl(tmp_path / "second.jsonl", [{"id": "q0", "error_step": 1}, {"id": "q1", "error_step": -1}])
    with pytest.raises(DataError, match="several solutions have the id 'q0'; give an output of `fapo judge`"):
        check_inputs(options, tmp_path / "audit.html", tmp_path / "second.jsonl", None)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "q0"}], "second.jsonl:1: must have error_step or scores"),
        ([{"id": "q9", "error_step": 1}], "second.jsonl:1: id 'q9' is in no row of the data"),
        ([{"id": "q0", "error_step": "1"}], "second.jsonl:1: error_step is '1', must be an integer"),
        ([verdict(i) for i in range(5)], "second.jsonl: there are fewer rows than solutions"),
        ([verdict(i) for i in range(7)], "second.jsonl: there are more rows than solutions"),
        ([verdict(i) for i in (1, 0, 2, 3, 4, 5)], r"row 1 is about 'q1', but the solution is 'q0'"),
        ([{"id": "q0", "num_steps": 4}], "second.jsonl:1: source: .*give an output of `fapo judge`"),
        ([verdict(0) | {"status": "fine"}], "second.jsonl:1: status: "),
    ],
)
def test_verdicts_on_something_else(tmp_path: Path, rows: list[Row], message: str) -> None:
    options = audited(tmp_path, SOLUTIONS, VERDICTS)
    write_jsonl(tmp_path / "second.jsonl", rows)
    with pytest.raises(DataError, match=message):
        write_audit(options, tmp_path / "audit.html", second=tmp_path / "second.jsonl")
    assert not (tmp_path / "audit.html").exists()


def test_labels_made_by_hand(tmp_path: Path) -> None:
    label = {"run": "audit", "split": "easy", "step": 0, "sample": 0}
    labels = [
        label | {"problem_id": "q0", "steps": ["fine", "flawed"], "error_step": 1},
        label | {"problem_id": "q1", "steps": ["flawed"], "error_step": 0},
    ]
    human = tmp_path / "labels.json"
    human.write_text(json.dumps({"schema": 1, "seed": 0, "drawn": 2, "labels": labels}))
    options = audited(tmp_path, SOLUTIONS, VERDICTS)
    page, _, (by_hand,) = write_audit(options, tmp_path / "audit.html", human=human)
    assert (by_hand.num, by_hand.num_flawed) == (2, (1, 2))
    html = page.read_text(encoding="utf-8")
    assert "<th>judge, audit</th><td>50.0 % " in html
    few = write_audit(options, tmp_path / "few.html", human=human, num_shown=1).path.read_text(encoding="utf-8")
    assert "<th>judge, audit</th><td>50.0 % " in few, "labelled solutions count, shown or not"
    labels[0]["problem_id"] = "q9"
    human.write_text(json.dumps({"schema": 1, "seed": 0, "drawn": 2, "labels": labels}))
    with pytest.raises(DataError, match=r"no rollout 0 of q9 .*give the files that the labels were made from"):
        write_audit(options, tmp_path / "audit.html", human=human)


def test_labels_of_a_source_with_invisible_characters(tmp_path: Path) -> None:
    source = "easy\u200b"
    options = audited(tmp_path, [solution(0, source=source)], [verdict(0, 1, source=source)])
    html = write_audit(options, tmp_path / "audit.html").path.read_text(encoding="utf-8")
    (split,) = unpacked(html)["split"]
    label = {"run": "audit", "split": split, "step": 0, "sample": 0, "problem_id": "q0"}
    labels = [label | {"steps": ["fine", "flawed"], "error_step": 1}]
    (tmp_path / "labels.json").write_text(json.dumps({"schema": 1, "seed": 0, "drawn": 1, "labels": labels}))
    _, _, (by_hand,) = write_audit(options, tmp_path / "audit.html", human=tmp_path / "labels.json")
    assert by_hand.num_located == (1, 1)


def test_inputs_are_checked_first(tmp_path: Path) -> None:
    options = audited(tmp_path, SOLUTIONS, VERDICTS)
    stdin = AuditSettings(judge=options.judge, model="m", files=("-",), out=options.out)
    with pytest.raises(ConfigError, match="write them to a file"):
        check_inputs(stdin, tmp_path / "audit.html", None, None)
    with pytest.raises(ConfigError, match="another file of this command"):
        check_inputs(options, options.out, None, None)
    with pytest.raises(DataError, match=r"none\.jsonl: no such file"):
        check_inputs(options, tmp_path / "audit.html", tmp_path / "none.jsonl", None)
    with pytest.raises(ConfigError, match="is one of the files to read"):
        check_inputs(options, tmp_path / "audit.html", options.out, None)


class Tags(HTMLParser):
    """Tags of a page, with the names of their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[str, ...]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(name for name, _ in attrs)))


MARKUP = ["</script>", "<script>", '"', "'", "<!--", "-->", "{{", "%}", "&lt;", "<b>", "</style>", "x"]
TEXTS = st.one_of(
    st.text(st.characters(codec="utf-8"), min_size=1),
    st.lists(st.sampled_from(MARKUP)).map("".join),
    st.just(HOSTILE.encode("utf-8", "replace").decode()),
).filter(str.strip)


def tags_of_page(folder: Path, text: str, critique: str, source: str, name: str) -> list[tuple[str, tuple[str, ...]]]:
    """Return the tags of a page about one solution with these texts."""
    rows = [solution(0, problem=text, steps=[text, text], reference=text, source=source, id=name)]
    verdicts = [verdict(0, 1, critique=critique, source=source, id=name, num_steps=2)]
    page = write_audit(audited(folder, rows, verdicts), folder / "audit.html").path.read_text(encoding="utf-8")
    assert page.count("</html>") == 1
    return Tags(page).found


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, tuple[str, ...]]]:
    """Return the tags of a page of harmless texts."""
    return tags_of_page(tmp_path_factory.mktemp("harmless"), "x", "x", "y", "z")


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_no_text_leaves_its_place(
    harmless: list[tuple[str, tuple[str, ...]]], tmp_path: Path, text: str, critique: str, source: str, name: str
) -> None:
    assert tags_of_page(tmp_path, text, critique, source, name) == harmless


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [solution(i) for i in range(3)])
    command = ("judge", tmp_path / "rows.jsonl", "--model", "m", "--template", "compact", "--out", tmp_path / "v.jsonl")
    with chat_server(Reply("2+2=5 no \\boxed{1}")) as server:
        assert fapo(monkeypatch, *command, "--judge", server.url, "--report", tmp_path / "audit.html") == 0
        assert "page: " in capsys.readouterr().err
        write_jsonl(tmp_path / "second.jsonl", [{"id": f"q{i}", "error_step": i - 1} for i in range(3)])
        more = ("--report", tmp_path / "audit.html", "--second", tmp_path / "second.jsonl", "--json")
        assert fapo(monkeypatch, *command, "--judge", server.url, *more) == 0
        said = capsys.readouterr()
        found = json.loads(said.out)
        assert (found["n"], found["num_flawed"], found["fp_ratio"]) == (3, 3, 1.0)
        assert found["sources"]["easy"]["fp_ratio_interval"] == found["fp_ratio_interval"]
        assert found["error_fifths"] == [0, 3, 0, 0, 0] and found["usage"]["from_cache"] == 3
        assert found["second_judge"]["num_flawed"] == [3, 2] and found["second_judge"]["num_same_step"] == 1
        assert "judge and second judge: FP ratio 100.0 %" in said.err and "by_hand" not in found
        label = {"run": "audit", "split": "easy", "step": 0, "sample": 0, "problem_id": "q1"}
        labels = [label | {"steps": ["fine", "flawed"], "error_step": 1}]
        (tmp_path / "labels.json").write_text(json.dumps({"schema": 1, "seed": 0, "drawn": 3, "labels": labels}))
        more = ("--report", tmp_path / "audit.html", "--human", tmp_path / "labels.json", "--json")
        assert fapo(monkeypatch, *command, "--judge", server.url, *more) == 0
        said = capsys.readouterr()
        by_hand = json.loads(said.out)["by_hand"]
        assert (by_hand["n"], by_hand["num_flawed"], by_hand["num_same_step"]) == (1, [1, 1], 1)
        assert "by hand: judge, audit: FP ratio 100.0 %" in said.err
        assert fapo(monkeypatch, *command, "--judge", server.url, "--second", tmp_path / "v.jsonl") == 2
    assert "--second is shown on the page; give --report audit.html, too" in capsys.readouterr().err
    assert "found a wrong step in 3: 100.0 %" in (tmp_path / "audit.html").read_text(encoding="utf-8")
