"""The documentation site builds without a warning, loads nothing from elsewhere, and its reference is whole."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fapo.cli.main import commands
from fapo.config.schema import known_keys

pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install -e '.[docs]'")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the built site; --strict makes broken links and pages outside the menu errors."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def text_of(page: Path) -> str:
    """Return the text of a page without its tags."""
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = [path.read_text(encoding="utf-8") for path in site.rglob("*.html")]
    assert len(pages) > 20
    for page in pages:
        loaded = re.findall(r"<(?:script|img|iframe|source)\b[^>]*?\bsrc=\"([^\"]+)", page)
        loaded += re.findall(r"<link\b(?=[^>]*rel=\"(?:stylesheet|icon|preconnect)\")[^>]*href=\"([^\"]+)", page)
        assert [path for path in loaded if re.match(r"(?:\w+:)?//", path)] == []
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style


def test_the_reference_is_whole(site: Path) -> None:
    page = (site / "reference/config.html").read_text(encoding="utf-8")
    shown = set(re.findall(r"<td><code>(\w+)</code></td>", page)) | set(re.findall(r"\[([\w.]+)\]", page))
    assert {key for key in known_keys() if key not in shown and key.rpartition(".")[2] not in shown} == set()
    shown_commands = text_of(site / "reference/cli.html")
    assert all(f"usage: fapo {name} " in shown_commands for name in commands())
    assert "--dry-run" in shown_commands, "options of a command"
    python = (site / "reference/python.html").read_text(encoding="utf-8")
    names = ("rewards.advantages.group_advantages", "types.Verdict.error_step")
    assert all(f'id="fapo.{name}"' in python for name in names)
