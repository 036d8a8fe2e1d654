"""The page of a report, made of synthetic run folders with known numbers."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fapo.errors import ConfigError, DataError
from fapo.report.browser import ASSETS, script
from fapo.report.findings import findings, remarks
from fapo.report.numbers import pack_numbers
from fapo.report.page import write_report
from fapo.report.panels import genrm_panels, policy_panels, styles, update_panels
from fapo.report.run_labels import group_runs
from fapo.report.settings_table import settings_table
from fapo.report.summary import crossing_text, find_crossing, predicted_rho, print_summary, summarize
from fapo.report.tiles import tiles
from fapo.training.run_reader import Run, Series, read_run
from tests.support.run_folders import genrm_rows, policy_rows, rollouts, write_run


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """A baseline and FAPO with two seeds, both GenRM rewards."""
    judge = {"kind": "local", "model": "runs/genrm/model"}
    fapo = {"kind": "fapo", "penalty": 1.0}
    return [
        write_run(tmp_path / "fapo_1", fapo, policy_rows("fapo", 1), rollouts(), judge=judge, task="policy"),
        write_run(tmp_path / "baseline", {"kind": "outcome"}, policy_rows("outcome"), judge=judge, task="policy"),
        write_run(tmp_path / "fapo_2", fapo, policy_rows("fapo", 2), judge=judge, task="policy"),
        write_run(tmp_path / "genrm", {"kind": "genrm_step"}, genrm_rows(1.0), task="genrm"),
        write_run(tmp_path / "outcome_only", {"kind": "genrm_outcome"}, genrm_rows(0.5), task="genrm"),
    ]


def run_of(rows: list[dict], kind: str = "fapo", penalty: float = 1.0, name: str = "r", **config: Any) -> Run:
    return Run(name, Path(name), {"reward": {"kind": kind, "penalty": penalty}, **config}, tuple(rows))


def train_rows(**columns: Callable[[int], Any]) -> list[dict]:
    return [
        {"step": step, "kind": "train"}
        | {
            "advantage/flawed" if name == "flawed" else f"rollout/{name}": value(step)
            for name, value in columns.items()
        }
        for step in range(1, 21)
    ]


# --- reading ----------------------------------------------------------------------------------------------------------


def test_series_skip_what_is_missing_and_keep_the_later_of_two() -> None:
    rows = [
        {"step": 2, "kind": "train", "a": 2.0},
        {"step": 1, "kind": "train", "a": None},
        {"step": 3, "kind": "train", "a": math.nan},
        {"step": 4, "kind": "train", "a": "1"},
        {"step": 5, "kind": "train", "a": True},
        {"kind": "train", "a": 1.0},
        {"step": 2, "kind": "train", "a": 7},
        {"step": 0, "kind": "train", "a": 1},
        {"step": 6, "kind": "validation", "a": 1},
    ]
    assert run_of(rows).series("a", "train") == Series((0.0, 2.0), (1.0, 7.0))
    assert not run_of(rows).series("b", "train")


def test_running_mean_of_five() -> None:
    smooth = Series((0, 1, 2, 3, 4, 5), (0.0, 1.0, 2.0, 3.0, 4.0, 11.0)).smoothed()
    assert smooth.values == pytest.approx((1.0, 1.5, 2.0, 4.2, 5.0, 6.0))
    assert smooth.at(2.5) == pytest.approx(3.1)
    assert Series((), ()).smoothed().at(3) is None


def test_torn_tail_and_missing_files(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "torn", {"kind": "outcome"}, policy_rows("outcome", steps=4), rollouts())
    whole = read_run(folder)
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        with (folder / name).open("a") as file:
            file.write('{"step": 5, "kind": "tr')
    assert read_run(folder).rows == whole.rows
    assert len(list(read_run(folder).rollouts())) == len(rollouts())
    for name in ("metrics.jsonl", "rollouts.jsonl"):
        (folder / name).unlink()
    assert read_run(folder).rows == ()
    assert list(read_run(folder).rollouts()) == []


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_folder_that_is_no_run(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(DataError, match=r"config\.json .*give a folder that `fapo train`"):
        read_run(tmp_path)
    with pytest.raises(DataError, match=r"config\.json"):
        read_run(tmp_path / "config.json")


@pytest.mark.parametrize(
    ("kind", "penalty", "label", "color"),
    [
        ("outcome", 1.0, "GRPO baseline", "orange"),
        ("fapo", 1.0, "FAPO", "blue"),
        ("fapo", 2.0, "FP -> negative", "pink"),
        ("fapo", 2 / 3, "FAPO, λ = 0.667", "sky"),
        ("step_ratio", 1.0, "step ratio", "red"),
        ("genrm_step", 1.0, "GenRM, step-wise", "green"),
        ("genrm_outcome", 1.0, "GenRM, outcome only", "pink"),
        ("", 1.0, "r", "grey"),
    ],
)
def test_labels_and_colours(kind: str, penalty: float, label: str, color: str) -> None:
    run = run_of([], kind, penalty)
    assert list(group_runs([run])) == [label]
    assert styles([run])[label].color == color


def test_labels_name_the_judge_and_other_settings_only_where_they_differ() -> None:
    oracle, base, trained = (
        {"kind": "oracle"},
        {"kind": "local", "model": "miniature:genrm"},
        {"kind": "local", "model": "runs/g/model"},
    )
    seeds = [run_of([], name=f"s{seed}", judge=trained, seed=seed) for seed in range(3)]
    assert {label: len(group) for label, group in group_runs(seeds).items()} == {"FAPO": 3}
    judges = [*seeds, run_of([], name="o", judge=oracle), run_of([], name="b", judge=base)]
    labels = {"FAPO, judge: trained GenRM": 3, "FAPO, judge: oracle": 1, "FAPO, judge: miniature:genrm": 1}
    assert {label: len(group) for label, group in group_runs(judges).items()} == labels
    assert {style.dash for style in styles(judges).values()} == {0, 1, 2}
    others = [run_of([], name=name, judge={"kind": "local", "model": name}) for name in ("owner/small", "owner/large")]
    assert list(group_runs(others)) == ["FAPO, judge: owner/small", "FAPO, judge: owner/large"], "not seeds of one run"
    fast = run_of([], name="fast", judge=trained, optim={"learning_rate": 1.0})
    assert set(group_runs([seeds[0], fast])) == {"FAPO (s0)", "FAPO (fast)"}


# --- numbers ----------------------------------------------------------------------------------------------------------


def test_crossing_by_interpolation() -> None:
    rhos = {"rho": 4, "true_rho": 5, "flawed_rho": 10, "true_flawed_rho": 20}
    columns = {name: lambda s, per=per: s / per for name, per in rhos.items()}
    crossing = find_crossing(run_of(train_rows(flawed=lambda s: 10.3 - s, **columns)))
    assert crossing is not None
    assert (crossing.step, crossing.rho, crossing.true_rho) == pytest.approx((10.3, 2.575, 2.06))
    assert (crossing.flawed_rho, crossing.true_flawed_rho, crossing.own_rho) == pytest.approx((1.03, 0.515, 1.03))
    text = "step 10, rho = 1.03 where there are flawed positives (whole batch: 2.58 by the judge, 2.06 by the oracle)"
    assert crossing_text(crossing) == text


def test_an_outlier_is_no_crossing() -> None:
    dip = run_of(train_rows(flawed=lambda s: -1.0 if s == 5 else 0.1))
    assert find_crossing(dip) is None
    late = run_of(train_rows(flawed=lambda s: 17.5 - s))
    assert find_crossing(late) is None
    assert crossing_text(find_crossing(late)) == "not within the run"


def test_crossing_from_the_start_and_without_rho() -> None:
    crossing = find_crossing(run_of(train_rows(flawed=lambda s: -1.0, rho=lambda s: None)))
    assert crossing is not None
    assert (crossing.step, crossing.rho, crossing.true_rho, crossing.own_rho) == (1, None, None, None)
    assert crossing_text(crossing) == "step 1"
    assert find_crossing(run_of([])) is None


def test_a_run_without_a_judge_is_classed_by_the_oracle() -> None:
    rows = [
        {"step": s, "kind": "train", "advantage/true_flawed": 5.5 - s, "rollout/true_flawed_rho": 1.0}
        for s in range(20)
    ]
    crossing = find_crossing(run_of(rows, "outcome"))
    assert crossing is not None
    assert (crossing.step, crossing.rho, crossing.own_rho) == (pytest.approx(5.5), None, 1.0)


def test_summary() -> None:
    def rows(start: float, end: float) -> list[dict]:
        values = ((0, start), (10, None), (20, end))
        return [{"step": step, "kind": "validation", "validation/accuracy": value} for step, value in values]

    runs = [
        run_of(rows(0.5, 0.7), "fapo"),
        run_of(rows(0.6, 0.8), "fapo"),
        run_of(rows(0.5, 0.6), "outcome"),
        run_of([{"step": 0, "kind": "validation", "harder/f1": 0.4, "harder/tokens": 50}], "genrm_step"),
    ]
    table = {(row.label, row.split, row.metric.name): row for row in summarize(runs)}
    assert [(r.label, r.metric.name, r.text, r.best) for r in table.values()] == [
        ("GRPO baseline", "accuracy", "50.0 % → 60.0 %", False),
        ("FAPO", "accuracy", "55.0 % → 75.0 % ± 7.1", True),
        ("GenRM, step-wise", "f1", "40.0 % → 40.0 %", False),
        ("GenRM, step-wise", "tokens", "50.0 → 50.0", False),
    ]
    fapo = table["FAPO", "validation", "accuracy"]
    assert (fapo.start, fapo.end, fapo.spread) == pytest.approx((0.55, 0.75, math.sqrt(0.005)))


def test_summary_of_a_run_without_validation_is_of_its_training_batches() -> None:
    run = run_of([{"step": s, "kind": "train", "rollout/accuracy": s / 10} for s in range(1, 8)], "outcome")
    (row,) = summarize([run])
    assert (row.split, row.start, row.end) == ("", pytest.approx(0.2), pytest.approx(0.6))


def test_the_printed_table(folders: list[Path]) -> None:
    out = io.StringIO()
    print_summary(folders, Console(file=out, width=160))
    text = out.getvalue()
    for word in ("GRPO baseline", "FAPO", "accuracy · harder", "turn negative", "GenRM, step-wise", "exact location"):
        assert word in text
    assert text.index("GRPO baseline") < text.index("FAPO")


def test_an_odd_label_is_printed_as_it_is(tmp_path: Path) -> None:
    out = io.StringIO()
    row = {"step": 0, "kind": "validation", "a[b]/accuracy": 0.5}
    print_summary([write_run(tmp_path / "odd", {"kind": "[/red]"}, [row])], Console(file=out, width=160))
    assert "[/red]" in out.getvalue()
    assert "a[b]" in out.getvalue()


# --- plots ------------------------------------------------------------------------------------------------------------


def test_panels(folders: list[Path]) -> None:
    runs = [read_run(path) for path in folders]
    titles = [panel.title for panel in policy_panels(runs)]
    assert titles == [
        "Accuracy, in-distribution",
        "Accuracy, harder",
        "Right for the right reason, in-distribution",
        "Right for the right reason, harder",
        "True flawed positives, in-distribution",
        "True flawed positives, harder",
        "Judged flawed positives, of correct",
        "Response length, tokens",
        "rho where there are flawed positives",
        "rho of the whole batch",
        "Mean advantage, GRPO baseline",
        "Mean advantage, FAPO: fapo_1",
        "F1 of the judge, by the oracle",
    ]
    panels = {panel.title: panel for panel in policy_panels(runs)}
    assert len(panels["Accuracy, harder"].curves) == 3
    assert len(panels["rho where there are flawed positives"].marks) == 2
    assert not panels["rho of the whole batch"].marks
    assert not panels["Mean advantage, GRPO baseline"].marks
    assert [panel.title for panel in genrm_panels(runs)][2:4] == ["F1", "F1, harder"]


def test_an_audit_is_drawn_with_its_intervals() -> None:
    steps = [
        {"step": n, "kind": "train"}
        | {
            f"audit/{name}{end}": 0.1 * n + i
            for name in ("youden_j", "gap")
            for i, end in enumerate(("_low", "", "_high"))
        }
        for n in (1, 2)
    ]
    panels = [panel for panel in policy_panels([run_of(steps, name="a"), run_of([], name="b")]) if panel.level == 0]
    assert [panel.title[:10] for panel in panels] == ["Youden's J", "Flawed pos"]
    for panel in panels:
        assert [curve.name for curve in panel.curves] == ["a", "a, lower bound", "a, upper bound"]
        assert [curve.series.values for curve in panel.curves] == [(1.1, 1.2), (0.1, 0.2), (2.1, 2.2)]


@pytest.mark.parametrize(
    ("reward", "judge", "predicted"),
    [
        pytest.param({}, {}, 1.0, id="as published"),
        pytest.param({"penalty": 2.0}, {}, 0.0, id="flawed positives are negatives"),
        pytest.param({"penalty": 3.0}, {}, None, id="never encouraged"),
        pytest.param({"judge_recall": 1.0, "judge_false_positive_rate": 0.5}, {}, 0.5, id="corrected: penalty 1.33"),
        pytest.param({"judge_recall": 0.2}, {}, None, id="corrected: penalty 5"),
        pytest.param({}, {"audit": {"correct": True}}, None, id="corrected for rates that change"),
        pytest.param({}, {"audit": {"correct": False}}, 1.0, id="audited"),
    ],
)
def test_the_predicted_rho_is_that_of_the_corrected_reward(reward: dict, judge: dict, predicted: float | None) -> None:
    """The rho at which the advantage of flagged rollouts turns negative, with the rewards of the run."""
    rows = train_rows(flawed=lambda step: 0.5 - 0.1 * step, flawed_rho=lambda step: 0.1 * step)
    run = run_of(rows, judge=judge)
    run = replace(run, config={**run.config, "reward": {**run.table("reward"), **reward}})
    assert predicted_rho(run) == (predicted if predicted is None else pytest.approx(predicted))
    (tile,) = tiles([run], [])
    assert ("theory predicts" in tile.sentence) is (predicted is not None)
    (panel,) = (panel for panel in policy_panels([run]) if panel.title == "rho where there are flawed positives")
    assert panel.level == (pytest.approx(predicted) if predicted else None)


def test_panels_of_the_update_have_the_names_of_either_engine() -> None:
    trl = run_of([{"step": 1, "kind": "train", "loss": 0.5, "entropy": 1.0}], name="a")
    verl = run_of([{"step": 1, "kind": "train", "actor/pg_loss": 0.25, "actor/grad_norm": 2.0}], name="b")
    found = {
        panel.title: [(curve.name, curve.series.values) for curve in panel.curves]
        for panel in update_panels([trl, verl])
    }
    assert found == {
        "Loss": [("a", (0.5,)), ("b", (0.25,))],
        "Entropy of the policy, nats a token": [("a", (1.0,))],
        "Norm of the gradient": [("b", (2.0,))],
    }


def test_packed_numbers_are_all_finite_metrics() -> None:
    run = run_of(
        [{"step": 1, "kind": "train", "loss": 1 / 3, "bad": math.nan}, {"step": 2, "kind": "validation", "x/f1": 1}]
    )
    table = json.loads(gzip.decompress(base64.b64decode(pack_numbers({}, [run]))))
    (found,) = table["runs"]
    assert found["series"] == {
        "train loss": {"steps": [1], "values": [0.333333]},
        "validation x/f1": {"steps": [2], "values": [1.0]},
    }
    assert (found["name"], found["color"], found["dash"]) == ("FAPO", "blue", "none")


# --- words and settings -----------------------------------------------------------------------------------------------


def ends(**values: tuple[float, float]) -> list[dict]:
    """Return the first and the last validation with these values."""
    names = {name.replace("__", "/"): pair for name, pair in values.items()}
    return [
        {"step": step, "kind": "validation"} | {name: pair[i] for name, pair in names.items()}
        for i, step in enumerate((0, 20))
    ]


def test_two_sentences_say_what_came_out() -> None:
    runs = [
        run_of(ends(validation__accuracy=(0.5, 0.6), validation__true_fp_ratio=(0.3, 0.4)), "outcome"),
        run_of(ends(validation__accuracy=(0.5, 0.7), validation__true_fp_ratio=(0.3, 0.1)), "fapo"),
    ]
    rows = summarize(runs)
    first, second = findings(runs, rows, {})
    assert first == "Compared: GRPO baseline (20 steps); FAPO (20 steps)."
    assert second == (
        "Accuracy on in-distribution problems: GRPO baseline 60.0 % (from 50.0 %), FAPO 70.0 % (from 50.0 %); true "
        "flawed positives of correct on in-distribution problems: GRPO baseline 40.0 % (from 30.0 %), "
        "FAPO 10.0 % (from 30.0 %)."
    )
    accuracy = [row for row in rows if row.metric.name == "accuracy"]
    _, doubtful = findings(runs, rows, dict.fromkeys(accuracy, (0.55, 0.75)))
    assert doubtful.endswith("The 95 % intervals of accuracy overlap.")
    assert findings([run_of([])], [], {}) == []


def test_remarks_on_numbers_that_startle() -> None:
    rare = [
        {"step": s, "kind": "train", "judge/f1": 0.9 - s / 20, "rollout/true_fp_ratio": 0.3 - s / 50} for s in range(12)
    ]
    silent = {"step": 12, "kind": "train", "rollout/unscored_rate": 0.2}
    weak = [{"step": s, "kind": "train", "advantage/flawed_fraction": 0.8 - s / 20} for s in range(12)]
    harder = ends(harder__accuracy=(0.2, 0.3), harder__fp_ratio=(0.7, 0.74), harder__true_fp_ratio=(0.2, 0.03))
    runs = [run_of([*rare, silent, *harder]), run_of(weak, name="w")]
    unfinished, reinforced, f1, depth, unscored = remarks(runs, summarize(runs))
    assert unfinished.startswith("FAPO: the runs have come to different steps (20, 11). Their last values")
    assert reinforced.startswith("w: at the start 75.0 % of the positive advantage is that of flawed positives")
    assert f1.startswith(
        "r: F1 of the judge falls from 85.0 % to 40.0 %, while flawed positives fall from 28.0 % to 10.0 %"
    )
    assert depth.startswith("FAPO, harder: the judge flags 74.0 % of the correct answers, and the oracle 3.0 %.")
    assert unscored.startswith("r: 20.0 % of the rollouts are unscored")
    calm = [run_of([{"step": s, "kind": "train", "judge/f1": 0.9, "rollout/true_fp_ratio": 0.3} for s in range(5)])]
    assert remarks(calm, summarize(calm)) == []


def test_settings_side_by_side(tmp_path: Path) -> None:
    one = write_run(
        tmp_path / "a", {"kind": "fapo"}, [{"step": 3, "kind": "train", "seconds": 90.0}], seed=1, x={"y": [2]}
    )
    two = write_run(tmp_path / "b", {"kind": "outcome"}, [], seed=1, x={"y": [2]})
    (one / "env.json").write_text(
        json.dumps({"started": "2026-01-02T03:04:05+00:00", "python": "3.11.7", "versions": {"trl": "1.16.0"}})
    )
    table = settings_table([read_run(one), read_run(two)])
    found = {row.name: (row.values, row.differs) for row in table.main}
    assert table.names == ("a", "b")
    assert found["reward.kind"] == (("fapo", "outcome"), True)
    assert found["seed"] == (("1", "1"), False)
    assert found["started"] == (("2026-01-02T03:04:05+00:00", "–"), False)
    assert found["version of trl"] == (("1.16.0", "–"), False)
    assert found["duration"] == (("90 s", "–"), False)
    assert [(row.name, row.values) for row in table.rest] == [("x.y", ("[2]", "[2]"))]


# --- the page ---------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_stands_alone_and_hostile_text_stays_text(folders: list[Path], tmp_path: Path) -> None:
    name = "<script>alert(0)</script>" + "<" * 600
    folders.append(write_run(tmp_path / "named", {"kind": "outcome"}, policy_rows("outcome"), name=name, seed=1))
    html = write_report(folders, tmp_path / "new" / "report.html").read_text(encoding="utf-8")
    assert f"&lt;script&gt;alert(0)&lt;/script&gt;{'&lt;' * 475} … (125 more characters)" in html, "cut, then escaped"
    page = Page(html)
    assert not page.tags & {"img", "link", "iframe", "object", "embed", "image", "base"}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    loads = [value for name, value in page.attributes if name in ("src", "href", "xlink:href", "srcset", "data")]
    assert all(str(value).startswith("#") for value in loads)
    without_names = re.sub("http://www.w3.org/(2000/svg|1998/Math/MathML)", "", html)
    assert not re.search(r"https?://|@import|url\((?!#)", without_names)
    assert "alert(1)" not in html, "rollouts are packed"
    sources = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    allowed = re.search(r"script-src 'sha256-([^']+)'\">", html)
    assert allowed
    assert [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in sources] == [allowed[1]]
    ids = [value for name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert html.count("<figure data-panel=") > 12
    assert len(html) < 2_000_000


@pytest.mark.parametrize(
    ("config", "rows"),
    [
        ({}, []),
        ({"reward": None, "judge": 3}, [{"step": 1}, {"kind": "train"}]),
        (
            {"reward": {"kind": "fapo", "penalty": None}},
            [{"step": 1, "kind": "validation", "validation/accuracy": None}],
        ),
        ({"reward": {"kind": "fapo", "penalty": 0}}, [{"step": 1, "kind": "train", "rollout/rho": 0.0}]),
        ({"reward": {"kind": "outcome"}}, [{"step": 1, "kind": "validation", "validation/accuracy": 1}]),
        ({"task": "genrm"}, [{"step": 1, "kind": "validation", "a/f1": 0.0}]),
    ],
)
def test_missing_measurements_break_nothing(tmp_path: Path, config: dict, rows: list[dict]) -> None:
    folder = write_run(tmp_path / "run", {}, rows)
    (folder / "config.json").write_text(json.dumps(config))
    html = write_report([folder], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "</html>" in html
    assert "nan" not in Page(html).text
    print_summary([folder], Console(file=io.StringIO()))


def test_a_report_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one run folder"):
        write_report([], tmp_path / "report.html")
    folder = write_run(tmp_path / "run", {"kind": "fapo"}, [])
    with pytest.raises(ConfigError, match="at least 0; got -1"):
        write_report([folder], tmp_path / "report.html", num_rollouts=-1)


def test_the_scripts_of_a_page_share_no_name() -> None:
    """They are joined to one script, in which a name that is declared twice stops all of it."""
    declared = re.compile(r"^(?:async )?(?:function|const|let|class) (?:\[([^\]]*)\]|\{([^}]*)\}|(\w+))", re.MULTILINE)
    text = script(*(file.name for file in ASSETS.glob("*.js")))
    names = [name for found in declared.findall(text) for name in re.findall(r"\w+", " ".join(found))]
    assert "drawing" in names and [name for name, num in Counter(names).items() if num > 1] == []
