"""The page in a real Chromium: filters, the list, labelling, export, hostile text, dark and narrow screens.

Without Chromium and its driver on the PATH the tests are skipped.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fapo.evaluation.audit.settings import AuditSettings
from fapo.report import read_run, write_report
from fapo.report.audit_page import write_audit
from fapo.report.human_review import agreements
from tests.support.chromium import needs_chromium, started
from tests.support.run_folders import HOSTILE, policy_rows, rollout, write_run

pytestmark = [pytest.mark.browser, needs_chromium]
WRONG = {"correct": False, "status": "skipped", "flawed": None, "error_step": None, "reward": -1.0}
UNSCORED = {"status": "failed", "flawed": None, "error_step": None, "reward": None}


def all_rows() -> list[dict]:
    """At step 5 a group with all four classes, a false negative and a false positive; 60 fully correct ones before."""
    group = [(1, 1, {}), (None, None, {}), (None, 1, WRONG), (1, 1, UNSCORED), (None, 2, {}), (0, None, {})]
    rows = [rollout(step, number, None, None) for step in (1, 2, 3) for number in range(20)]
    rows += [rollout(5, 100, judged, true, **changes) for judged, true, changes in group]
    texts = dict.fromkeys(("problem", "response", "critique", "reference", "problem_id"), HOSTILE + "</script>")
    return [*rows, rollout(4, 0, 0, 0, **texts)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    place = tmp_path_factory.mktemp("runs")
    other = [rollout(2, 7, 1, 1, split="validation", response="a\nb\n\\boxed{5}")]
    return [
        write_run(place / "fapo", {"kind": "fapo", "penalty": 1.0}, policy_rows("fapo", steps=20), all_rows()),
        write_run(place / "grpo", {"kind": "outcome"}, policy_rows("outcome", steps=20), other),
    ]


@pytest.fixture(scope="module")
def page(folders: list[Path]) -> Path:
    return write_report(folders, folders[0].parent / "page.html")


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory, downloads: Path) -> Iterator[Any]:
    with started(tmp_path_factory.mktemp("profile"), downloads) as driver:
        yield driver


class Screen:
    """A page on a screen, told what to do by its own elements."""

    def __init__(self, driver: Any, page: Path, width: int = 1200, scheme: str = "light", fragment: str = "") -> None:
        self.driver = driver
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        driver.get("about:blank")
        driver.get(page.as_uri() + fragment)
        self.run("document.getElementById('browser').scrollIntoView()")
        self.wait(lambda: self.get("document.body.dataset.ready") == "true")

    def run(self, script: str) -> Any:
        return self.driver.execute_script(script)

    def get(self, expression: str) -> Any:
        return self.run(f"return {expression}")

    def text(self, selector: str) -> str:
        return self.get(f"document.querySelector({json.dumps(selector)}).innerText")

    def keys(self, selector: str, *keys: str) -> None:
        self.driver.find_element("css selector", selector).send_keys(*keys)

    def click(self, selector: str) -> None:
        self.driver.execute_script("arguments[0].click()", self.driver.find_element("css selector", selector))

    def choose(self, name: str, value: str) -> None:
        """Set a filter as a person would: its value, and the event that goes with it."""
        field = f"document.getElementById('filters').elements[{json.dumps(name)}]"
        self.run(f"{field}.value = {json.dumps(value)}; {field}.dispatchEvent(new Event('input', {{bubbles: true}}))")

    def classes(self, *wanted: str) -> None:
        for name in ("fully_correct", "flawed", "wrong", "unscored"):
            box = f"[name=kind][value={name}]"
            if self.get(f"document.querySelector('{box}').checked") != (name in wanted):
                self.click(box)

    def count(self) -> int:
        return int(self.text("#count").split()[0].replace(",", ""))

    def wait(self, condition: Callable[[], bool], seconds: float = 600) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.driver.get_log("browser")
            time.sleep(0.05)

    def complaints(self) -> list[Any]:
        """What the console says, security policy included."""
        return self.driver.get_log("browser")


ALL = ("fully_correct", "flawed", "wrong", "unscored")


def test_filters(chromium: Any, page: Path) -> None:
    screen = Screen(chromium, page)
    assert screen.count() == 4, "flawed: three of fapo, one of grpo"
    counts = screen.get("[...document.querySelectorAll('.chip b')].map((b) => Number(b.textContent))")
    assert counts == [62, 4, 1, 1]
    screen.classes("wrong", "unscored")
    assert screen.count() == 2
    screen.classes(*ALL)
    assert screen.count() == 68
    for name, value, expected in [
        ("run", "grpo", 1),
        ("split", "validation", 1),
        ("from", "4", 7),
        ("to", "2", 41),
        ("agreement", "false_negative", 1),
        ("agreement", "false_positive", 1),
        ("agreement", "agree", 64),
        ("question", "start 24", 4),
        ("question", "miniature-100", 6),
        ("question", "no such words", 0),
    ]:
        screen.choose(name, value)
        assert screen.count() == expected, (name, value)
        screen.choose(name, "")
    assert screen.count() == 68
    assert screen.complaints() == []


def test_a_rollout_step_by_step(chromium: Any, page: Path) -> None:
    screen = Screen(chromium, page)
    screen.choose("agreement", "false_positive")
    assert screen.text("#shown header b") == "flawed"
    assert screen.get("[...document.querySelectorAll('#shown li.error pre')].map((p) => p.textContent)") == [
        "117+8=125"
    ]
    assert "judge: first wrong step" in screen.text("#shown li.error")
    assert "every step is right" in screen.text("#shown .oracle")
    assert "\\boxed{1}" in screen.text("#shown .sides pre:not(li pre)")
    colours = "[...document.querySelectorAll('#shown .group button')].map((b) => b.className)"
    assert screen.get(colours) == ["flawed", "fully_correct", "wrong", "unscored", "fully_correct", "flawed"]
    screen.click("#shown .group button.wrong")
    assert screen.text("#shown header b") == "wrong"
    assert "not asked" in screen.text("#shown .sides")
    screen.click("#shown .link")
    screen.choose("agreement", "")
    screen.classes(*ALL)
    assert screen.count() == 6


def test_the_first_rollout_is_one_where_the_verdict_made_a_difference(chromium: Any, tmp_path: Path) -> None:
    wrong_flag = rollout(9, 1, 1, None, advantage=-2.0)
    same = rollout(8, 2, 1, 1, advantage=0.0)
    telling = rollout(7, 3, 1, 1, advantage=-1.5)
    run = write_run(tmp_path / "one", {"kind": "fapo"}, [], [telling, same, wrong_flag])
    screen = Screen(chromium, write_report([run], tmp_path / "page.html"))
    assert screen.count() == 3
    assert screen.get("data.step[found[chosen]]") == 7


def test_tables_can_be_read_on_a_phone(chromium: Any, page: Path) -> None:
    screen = Screen(chromium, page, 390)
    cells = "[...document.querySelectorAll('.settings td')].filter((cell) => cell.textContent.length > 3)"
    assert screen.get(f"{cells}.length") > 0
    assert screen.get(f"Math.min(...{cells}.map((cell) => cell.offsetWidth))") > 110, "no column of single letters"
    assert screen.get("document.querySelector('th:first-child').offsetWidth") < 200, "numbers beside it are in sight"
    assert screen.get("document.querySelector('#explored svg').clientHeight") > 200


def test_search_order_and_links(chromium: Any, page: Path) -> None:
    screen = Screen(chromium, page)
    assert screen.get("data.flagged[found[chosen]] && data.critique[found[chosen]] !== ''"), "a flagged one is first"
    screen.classes(*ALL)
    screen.choose("question", "125*3=375 NO")  # in critiques only
    assert screen.count() == 6
    screen.choose("question", "")
    screen.choose("order", "earliest")
    assert "step 1" in screen.text("#shown header")
    screen.choose("order", "error")
    assert screen.get("found.slice(0, 8).map((i) => data.judged[i])") == [0, 0, 1, 1, *[None] * 4]
    link = screen.get("[...document.querySelectorAll('#shown a.link')].map((a) => a.getAttribute('href'))[0]")
    assert link.startswith("#rollout=fapo/train/")
    screen.choose("run", "grpo")
    screen.run(f"location.hash = {json.dumps(link)}")
    screen.wait(lambda: screen.get("address(found[chosen])") == link)
    again = Screen(chromium, page, fragment=link)
    assert again.get("address(found[chosen])") == link
    assert again.get("address(found[chosen])") in again.get("document.querySelector('#shown a.link').href")
    gone = Screen(chromium, page, fragment="#rollout=fapo/train/9/none/0")
    assert gone.text("#count") == "The rollout of this link is not on the page."


def test_the_browser_of_an_audit(chromium: Any, tmp_path: Path) -> None:
    rows = [{"id": i, "problem": HOSTILE, "correct": i != 2, "steps": [HOSTILE, "b"], "source": "s"} for i in range(4)]
    verdict = {"source": "s", "correct": True, "status": "ok", "flawed": True, "error_step": 1, "num_steps": 2}
    verdicts = [verdict | {"id": i, "critique": f"A guess. {HOSTILE}"} for i in range(4)]
    verdicts[0] |= {"flawed": False, "error_step": None}
    verdicts[2] |= {"correct": False, "status": "skipped", "flawed": None, "error_step": None}
    verdicts[3] |= {"critique": "The sum is 3, not 4."}
    for name, found in (
        ("rows", rows),
        ("verdicts", verdicts),
        ("second", [row | {"error_step": 0} for row in verdicts]),
    ):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    files, out = (str(tmp_path / "rows.jsonl"),), tmp_path / "verdicts.jsonl"
    settings = AuditSettings(judge=("http://localhost:1/v1",), model="m", files=files, out=out)
    screen = Screen(chromium, write_audit(settings, tmp_path / "audit.html", second=tmp_path / "second.jsonl").path)
    assert screen.text("#count") == "2 of 4 solutions"
    seen = "[...document.querySelectorAll('#filters select')].filter((e) => e.offsetHeight).map((e) => e.name)"
    assert screen.get(seen) == ["error_kind", "second", "order"]
    screen.choose("error_kind", "guess")
    assert screen.count() == 1
    assert "judge: first wrong step" in screen.text("#shown li:last-child")
    assert "second judge: first wrong step" in screen.text("#shown li:first-child")
    assert "kind by its words: guess" in screen.text("#shown .sides")
    assert "step" not in screen.text("#shown header")
    screen.click("#draw button")
    assert screen.text("#progress") == "0 of 3 labelled"
    screen.keys("#labelling", "x")
    assert screen.get("file().labels[0].run") == "audit"
    assert screen.get("document.querySelectorAll('main img, main .sides script').length") == 0
    assert screen.complaints() == []


FORMULAS = {
    r"So \(\frac{3}{4} = x_1^2\) and $\sqrt[3]{8}=2$.": (2, ["mfrac", "msubsup", "mroot"]),
    r"\[ \begin{aligned} a &= \boxed{7} \\ b &\leq \sum_{i=1}^{n} \sin x \end{aligned} \]": (
        1,
        ["mtable", "munderover"],
    ),
    r"It costs $5 and $10, or $20-$30.": (0, []),
    r"\( \href{javascript:alert(1)}{x} \) $\phantom{hidden}$ \(\color{white}{5}\) \(x^{2\) \(a_1_2\)": (0, []),
    rf"\(\text{{{HOSTILE.replace(chr(92), '').split(chr(10))[0]}}}\) <b>": (1, ["mtext"]),
    "$" + "{" * 900 + "}" * 900 + "$" + r"\(" * 2000: (0, []),
}
"""Texts, each with the number of its formulas that are drawn, and elements that these have."""


def test_formulas_are_drawn_where_they_are_understood_and_never_become_markup(chromium: Any, tmp_path: Path) -> None:
    texts = list(FORMULAS)
    row = {"id": 0, "problem": texts[0], "correct": True, "steps": texts, "source": "s"}
    verdict = {"id": 0, "source": "s", "correct": True, "status": "ok", "flawed": True, "error_step": 1, "num_steps": 6}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    (tmp_path / "verdicts.jsonl").write_text(json.dumps(verdict | {"critique": texts[1]}))
    files, out = (str(tmp_path / "rows.jsonl"),), tmp_path / "verdicts.jsonl"
    settings = AuditSettings(judge=("http://localhost:1/v1",), model="m", files=files, out=out)
    screen = Screen(chromium, write_audit(settings, tmp_path / "audit.html").path)
    for number, (num, names) in enumerate(FORMULAS.values()):
        step = f"#shown li:nth-child({number + 1}) pre"
        assert screen.get(f"document.querySelectorAll('{step} math').length") == num, texts[number]
        assert all(screen.get(f"document.querySelectorAll('{step} {name}').length") for name in names)
        sources = f"[...document.querySelectorAll('{step} math')].map((e) => e.parentElement.title)"
        assert all(source in texts[number] for source in screen.get(sources))
        if not num:
            assert screen.get(f"document.querySelector('{step}').textContent") == texts[number]
    assert screen.get("document.querySelectorAll('#shown .problem math').length") == 2
    assert screen.get("document.querySelector('#shown math').getBoundingClientRect().height") > 10, "it is drawn"
    names = (
        "[...new Set([...document.querySelectorAll('math *')].flatMap((e) => [e.localName, ...e.getAttributeNames()]))]"
    )
    attributes = {"class", "stretchy", "fence", "form", "width"}
    assert {name for name in screen.get(names) if not name.startswith("m")} <= attributes
    assert (
        screen.get("document.querySelectorAll('main img, main .sides script, main a[href^=java], .sides b b').length")
        == 0
    )
    screen.click("#draw button")
    assert screen.get("document.querySelectorAll('#labelling .steps math').length") == 4
    clipped = (
        "[...document.querySelectorAll('#labelling li')].filter((e) => getComputedStyle(e).overflowX !== 'visible')"
    )
    assert screen.get(f"{clipped}.length") == 0, "a step that scrolls has no number"
    screen.choose("formulas", "source")
    assert screen.get("document.querySelectorAll('main math').length") == 0
    assert screen.get("document.querySelector('#shown li pre').textContent") == texts[0]
    assert screen.complaints() == []


def test_the_list_by_keyboard_holds_only_what_is_in_sight(chromium: Any, page: Path) -> None:
    screen = Screen(chromium, page)
    screen.classes(*ALL)
    assert screen.get("document.querySelectorAll('#list .row').length") < 40
    screen.keys("#list", *"jjjjjj", *"k")
    assert screen.get("document.querySelector('#list [aria-selected=true]').id") == "row-5"
    assert "fapo · train · step 5" in screen.text("#shown header")
    screen.run("document.getElementById('list').scrollTop = 1e9")
    screen.wait(lambda: screen.get("document.getElementById('row-67') !== null"))
    screen.click("#row-67")
    assert "step 1" in screen.text("#shown header")


def test_hostile_text_stays_text(chromium: Any, page: Path) -> None:
    screen = Screen(chromium, page)
    screen.choose("from", "4")
    screen.choose("to", "4")
    assert screen.count() == 1
    shown = screen.get("document.getElementById('shown').textContent")
    assert shown.count("<script>alert(1)</script>") == shown.count('<img src=x onerror="alert(2)">') == 4
    assert "\\ud800\\u202e\\u0000" in shown
    assert screen.get("document.querySelectorAll('main img, main .sides script').length") == 0
    screen.click("#draw button")
    assert screen.get("document.getElementById('labelling').textContent").count("<script>alert(1)</script>") == 3
    assert screen.complaints() == [], "nothing was even tried"
    # And if markup got in, the policy of the page would not let it run.
    screen.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title = 1\">')")
    screen.wait(lambda: "Content Security Policy" in str(screen.complaints()))
    assert screen.get("document.title") != "1"


def test_labelling_by_keyboard_export_and_agreement(
    chromium: Any, page: Path, folders: list[Path], downloads: Path
) -> None:
    screen = Screen(chromium, page)
    screen.choose("from", "5")
    screen.click("#draw button")
    assert screen.text("#progress") == "0 of 5 labelled", "right answers only"
    assert screen.get("document.activeElement.id") == "labelling"
    label = screen.get("document.getElementById('labelling').innerText")
    assert not any(word in label for word in ("judge", "oracle", "Critique", "flawed\n"))
    arrow_left, arrow_right, arrow_up = "\ue012", "\ue014", "\ue013"
    screen.keys("#labelling", "f", "x")  # 1: the second step is wrong
    screen.keys("#labelling", "f", "f", "f")  # 2: all three are fine
    screen.keys("#labelling", "a")  # 3: fine
    screen.keys("#labelling", "f", "f", arrow_up, "x")  # 4: second thoughts, the second step is wrong
    screen.keys("#labelling", arrow_left, arrow_right)
    assert screen.text("#progress") == "4 of 5 labelled"
    screen.click("#export")
    file = downloads / "labels.json"
    screen.wait(file.exists)
    saved = json.loads(file.read_text())
    assert (saved["schema"], saved["seed"], saved["drawn"], saved["balanced"]) == (1, 0, 5, False)
    assert [row["error_step"] for row in saved["labels"]] == [1, None, None, 1]
    assert [row["steps"] for row in saved["labels"]] == [
        ["fine", "flawed"],
        ["fine"] * 3,
        ["fine"] * 3,
        ["fine", "flawed"],
    ]
    assert len({row["sample"] for row in saved["labels"]}) == 4
    assert {len(row["text_hash"]) for row in saved["labels"]} == {8}
    found = agreements(file, [read_run(path) for path in folders])
    assert [(row.of, row.num + row.num_silent) for row in found] == [("judge, fapo", 4), ("oracle, fapo", 4)]
    assert {row.num_flawed[1] for row in found if not row.num_silent} == {2}
    file.unlink()


def test_a_watched_page_is_loaded_again_until_a_person_works_on_it(chromium: Any, folders: list[Path]) -> None:
    screen = Screen(chromium, write_report(folders, folders[0].parent / "watched.html", refresh=3))
    screen.run("window.before = true")
    screen.wait(lambda: screen.get("window.before") is None and screen.get("document.body.dataset.ready") == "true")
    screen.run("window.before = true; drawing.elements.seed.focus()")
    screen.wait(lambda: not screen.get("document.getElementById('working').hidden"))
    screen.click("#draw button")
    screen.keys("#labelling", "a")
    screen.run("document.activeElement.blur()")  # nothing has the focus, but there is a label
    screen.run("document.getElementById('working').hidden = true")
    screen.wait(lambda: not screen.get("document.getElementById('working').hidden"))
    assert screen.get("window.before")
    assert screen.text("#progress").startswith("1 of ")
    screen.run("saved = true")  # otherwise the browser asks before it leaves the page
    assert not screen.complaints()


def test_plots_have_values_on_hover_a_choice_of_metric_and_a_csv(chromium: Any, page: Path, downloads: Path) -> None:
    screen = Screen(chromium, page)
    screen.wait(lambda: screen.get("document.body.dataset.drawn") == "true")
    figures = "[...document.querySelectorAll('figure[data-panel]')]"
    assert (
        screen.get(f"{figures}.length")
        == screen.get(f"{figures}.filter((f) => f.querySelector('svg .curve')).length")
        > 10
    )
    label = "document.querySelector('figure[data-panel=policy-0] svg').getAttribute('aria-label')"
    assert screen.get(label).startswith("Accuracy, in-distribution: grpo ends at ")
    screen.keys("figure[data-panel=policy-0]", "\ue014", "\ue014")
    assert screen.text("figure[data-panel=policy-0] output").splitlines()[0] == "step 10"
    assert screen.get("document.querySelectorAll('figure[data-panel=policy-0] output span').length") == 2
    ends = "[...document.querySelectorAll('figure')].filter((f) => f.innerText.includes('Mean advantage, FAPO'))[0]"
    places = screen.get(
        f"[...{ends}.querySelectorAll('text:not(.tick, .mark)')].map((t) => Number(t.getAttribute('y')))"
    )
    assert all(abs(a - b) >= 12 for i, a in enumerate(places) for b in places[:i]), "labels do not overlap"
    options = screen.get("[...document.getElementById('explore').elements.metric.options].map((o) => o.value)")
    assert options[0] == "train loss" and "validation validation/accuracy" in options
    screen.run("explore.elements.metric.value = 'train judge/f1'; explore.dispatchEvent(new Event('input'))")
    assert screen.get("document.querySelectorAll('#explored .curve').length") == 2
    screen.click("#csv")
    file = downloads / "metrics.csv"
    screen.wait(file.exists)
    rows = list(csv.DictReader(file.open(newline="", encoding="utf-8")))
    assert {row["run"] for row in rows} == {"GRPO baseline", "FAPO"}
    written = [json.loads(line) for line in (page.parent / "fapo" / "metrics.jsonl").read_text().splitlines()]
    wanted = next(row for row in written if row["kind"] == "train" and row["step"] == 7)["judge/f1"]
    (found,) = (r for r in rows if (r["run"], r["metric"], r["step"]) == ("FAPO", "judge/f1", "7"))
    assert float(found["value"]) == pytest.approx(wanted, rel=1e-5)
    assert screen.complaints() == []
    file.unlink()


def test_a_single_measurement_is_a_dot(chromium: Any, tmp_path: Path) -> None:
    rows = [{"step": 1, "kind": "train", "judge/f1": 1.0, "rollout/accuracy": 0.5}]
    page = write_report(
        [write_run(tmp_path / "one", {"kind": "fapo"}, rows, [rollout(1, 1, 1, 1)])], tmp_path / "page.html"
    )
    screen = Screen(chromium, page)
    screen.wait(lambda: screen.get("document.body.dataset.drawn") == "true")
    assert screen.get("document.querySelectorAll('figure[data-panel=policy-0] circle').length") == 1
    assert screen.complaints() == []


def test_a_balanced_draw_has_as_many_flagged_as_cleared_solutions(chromium: Any, page: Path) -> None:
    screen = Screen(chromium, page)
    assert screen.get("drawing.elements.of.value") == "all"

    def drawn(num: int, seed: int = 0) -> list[bool]:
        for name, value in {"of": "balanced", "num": num, "seed": seed}.items():
            screen.run(f"drawing.elements.{name}.value = {json.dumps(value)}")
        screen.click("#draw button")
        return screen.get("drawn.map((i) => data.flagged[i])")

    assert sorted(drawn(2)) == [False, True]
    orders = [drawn(50, seed) for seed in range(4)]
    num_flagged = screen.get("data.flagged.filter((flagged, i) => flagged && data.correct[i]).length")
    assert {(order.count(True), order.count(False)) for order in orders} == {(num_flagged, num_flagged)}, (
        "all of the rarer kind"
    )
    assert len({tuple(order) for order in orders}) > 1, "in mixed order"


def test_the_rollouts_that_an_audit_has_drawn_for_a_person_are_labelled(chromium: Any, tmp_path: Path) -> None:
    rows = [rollout(1, number, None, None) for number in range(6)]
    judge = {"kind": "oracle", "audit": {"judge": {"kind": "person"}}}
    folder = write_run(tmp_path / "r", {"kind": "fapo"}, policy_rows("fapo", steps=10), rows, judge=judge)
    drawn = [{key: rows[number][key] for key in ("step", "problem_id", "response")} for number in (1, 4)]
    (folder / "audit.jsonl").write_text("".join(json.dumps(row) + "\n" for row in drawn), encoding="utf-8")
    screen = Screen(chromium, write_report([folder], tmp_path / "page.html"))
    screen.click("#filters .fully_correct")
    screen.click("#draw button")
    assert screen.text("#progress") == "0 of 2 labelled"
    screen.keys("#labelling", "a", "a")
    assert sorted(screen.get("file().labels.map((row) => row.problem_id)")) == ["miniature-1", "miniature-4"]


def test_the_draw_depends_on_its_seed_only(chromium: Any, page: Path) -> None:
    def drawn(seed: int) -> list[int]:
        screen = Screen(chromium, page)
        screen.run(f"drawing.elements.seed.value = {seed}; drawing.elements.num.value = 10")
        screen.click("#draw button")
        return screen.get("drawn")

    first = drawn(3)
    assert len(set(first)) == 10
    assert drawn(3) == first != drawn(4)


def test_fifty_thousand_rollouts(chromium: Any, tmp_path: Path) -> None:
    rows = [rollout(i // 500, i % 500, 1 if i % 3 else None, 1) for i in range(50_000)]
    page = write_report([write_run(tmp_path / "many", {"kind": "fapo"}, [], rows)], tmp_path / "page.html")
    assert page.stat().st_size < 2_000_000
    screen = Screen(chromium, page)
    screen.classes(*ALL)
    assert screen.count() == 50_000
    screen.run("document.getElementById('list').scrollTop = 38 * 40000")
    screen.wait(lambda: screen.get("document.getElementById('row-40000') !== null"))
    screen.choose("question", "miniature-24")
    assert screen.count() == 100


@pytest.mark.parametrize("width", [390, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark_phone_and_desk(chromium: Any, page: Path, width: int, scheme: str) -> None:
    screen = Screen(chromium, page, width, scheme)
    screen.click("#draw button")
    assert screen.get("document.documentElement.scrollWidth") <= width, "nothing sticks out"
    brightness = "(e) => getComputedStyle(e).%s.match(/[\\d.]+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0) / 3"
    back, text = (screen.get(f"({brightness % property})(document.body)") for property in ("backgroundColor", "color"))
    assert (text > 200 and back < 50) if scheme == "dark" else (text < 60 and back > 230)
    small = "[...document.querySelectorAll('#filters select, #filters .chip, .keys button, #draw button')]"
    assert screen.get(f"{small}.every((e) => e.offsetHeight >= 34 && e.getBoundingClientRect().right <= {width})")
