"""The documentation as a site: it builds without a warning, works from disk without a network, its plot is right."""

from __future__ import annotations

import html
import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import needs_chromium, started

from fapo import cli, rewards
from fapo.config import known_keys

pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install -e '.[docs]'")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site. Broken links, missing anchors and pages that no menu names are warnings, and so errors."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def text_of(page: Path) -> str:
    """What a page says, without its tags."""
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = [path.read_text(encoding="utf-8") for path in site.rglob("*.html")]
    assert len(pages) > 20
    for page in pages:
        loaded = re.findall(r"<(?:script|img|iframe|source)\b[^>]*?\bsrc=\"([^\"]+)", page)
        loaded += re.findall(r"<link\b(?=[^>]*rel=\"(?:stylesheet|icon|preconnect)\")[^>]*href=\"([^\"]+)", page)
        assert any(path.endswith("worker.js") for path in loaded)
        assert [path for path in loaded if re.match(r"(?:\w+:)?//", path)] == []
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style


def test_the_reference_is_whole(site: Path) -> None:
    told = (site / "reference/config.html").read_text(encoding="utf-8")
    known = set(known_keys())
    for key in known - {key.rpartition(".")[0] for key in known}:
        table, _, name = key.rpartition(".")
        section = told.partition(f'id="{table or "top-level"}"')[2].partition("<h2")[0]
        assert f"<code>{name}</code>" in section, key
    commands = text_of(site / "reference/cli.html")
    assert all(f"usage: fapo {name} " in commands for name in cli.app._subcommands)
    assert "Go on with an interrupted run of the same name." in commands
    python = (site / "reference/python.html").read_text(encoding="utf-8")
    assert all(f'id="fapo.{name}"' in python for name in ("rewards.group_advantages", "types.Verdict.error_step"))


def test_files_of_the_repository_are_in_the_site(site: Path) -> None:
    page = (site / "concepts.html").read_text(encoding="utf-8")
    (link,) = re.findall(r'href="(files/[^"]*rewards[^"]*)"', page)
    assert "def expected_advantages" in text_of(site / link)
    assert 'href="log.html"' in (site / "limitations.html").read_text(encoding="utf-8")
    assert 'href="paper/index.html"' in (site / "log.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with started(tmp_path_factory.mktemp("profile")) as driver:
        driver.set_window_size(1300, 900)
        yield driver


def wait(condition: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@needs_chromium
def test_the_formulas_of_the_plot_are_those_of_the_code(chromium: Any, site: Path) -> None:
    chromium.get((site / "concepts.html").as_uri())
    shares = [(a / 10, b / 10) for a in range(11) for b in range(11 - a)]
    points = [(alpha, beta, penalty) for alpha, beta in shares for penalty in (0.0, 0.5, 1.0, 4 / 3, 2.0, 3.0)]
    found = chromium.execute_script(
        "return JSON.parse(arguments[0]).map((p) => [fapoTheory.mean(...p), fapoTheory.variance(...p),"
        " ...fapoTheory.advantages(...p)])",
        json.dumps(points),
    )
    for point, values in zip(points, found, strict=True):
        mean, variance = rewards.fapo_mean(*point), rewards.fapo_variance(*point)
        expected = [mean, variance, *rewards.expected_advantages(*point)]
        assert values == pytest.approx(expected, abs=1e-6), point
    for penalty in (0.5, 1.0, 3.0):
        ratios = chromium.execute_script(
            "return [fapoTheory.shiftRatio(arguments[0]), fapoTheory.rho(0.2, 0.5)]", penalty
        )
        assert ratios == pytest.approx([rewards.shift_ratio(penalty), rewards.rho(0.2, 0.5)])


@needs_chromium
@pytest.mark.parametrize(
    ("alpha", "gamma", "penalty"), [(0.3, 0.2, 1.0), (0.6, 0.2, 1.0), (0.2, 0.5, 2.0), (0.5, 0.5, 1.0), (0.3, 0.7, 0.0)]
)
def test_the_sliders_show_the_advantages(chromium: Any, site: Path, alpha: float, gamma: float, penalty: float) -> None:
    chromium.get((site / "concepts.html").as_uri())
    chromium.execute_script(
        "const form = document.querySelector('#advantages form');"
        "[form.alpha.value, form.gamma.value, form.penalty.value] = arguments;"
        "form.penalty.dispatchEvent(new Event('input', {bubbles: true}))",
        *(alpha, gamma, penalty),
    )
    told = chromium.execute_script("return document.querySelector('#advantages p').textContent").replace("−", "-")
    beta = 1 - alpha - gamma
    shift = rewards.shift_ratio(penalty)
    numbers = [
        beta,
        rewards.rho(round(alpha, 9), round(beta, 9)),
        shift,
        *rewards.expected_advantages(alpha, beta, penalty),
    ]
    shown = [math.inf if number == "∞" else float(number) for number in re.findall(r"∞|-?\d+\.\d+", told)]
    assert shown == pytest.approx(numbers, abs=0.0051)
    assert chromium.find_elements("css selector", "#advantages svg line.mark") == [] if math.isinf(shift) else True
    assert len(chromium.find_elements("css selector", "#advantages svg circle")) == 3


@needs_chromium
def test_shares_are_at_most_one_together(chromium: Any, site: Path) -> None:
    chromium.get((site / "concepts.html").as_uri())
    left = chromium.execute_script(
        "const form = document.querySelector('#advantages form');"
        "form.gamma.value = 0.6; form.gamma.dispatchEvent(new Event('input', {bubbles: true}));"
        "form.alpha.value = 0.9; form.alpha.dispatchEvent(new Event('input', {bubbles: true}));"
        "return Number(form.gamma.value)"
    )
    assert left == pytest.approx(0.1)


@needs_chromium
def test_the_plot_fits_a_phone(chromium: Any, site: Path) -> None:
    phone = {"width": 390, "height": 900, "deviceScaleFactor": 1, "mobile": True}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    chromium.get((site / "concepts.html").as_uri())
    wide = chromium.execute_script("return document.documentElement.scrollWidth")
    chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wide <= 390


@needs_chromium
def test_the_search_works_from_disk(chromium: Any, site: Path) -> None:
    chromium.get((site / "audit.html").as_uri())
    field = chromium.find_element("css selector", ".md-search__input")
    wait(
        lambda: chromium.execute_script("return window.IFrameWorker !== undefined && document.readyState") == "complete"
    )
    field.click()
    field.send_keys("canaries")
    wait(lambda: chromium.find_elements("css selector", ".md-search-result__link"))
    found = [link.get_attribute("href") for link in chromium.find_elements("css selector", ".md-search-result__link")]
    assert (site / "reliability.html").as_uri() + "#canaries" in [link.partition("?")[0] for link in found], found
    assert chromium.get_log("browser") == []
