"""The table of judges in the documentation is what `fapo bench` makes of the predictions in the repository."""

from __future__ import annotations

from pathlib import Path

from tests.support.command_line import fapo
from tests.support.documents import ROOT, commands


def test_the_table_of_judges_is_that_of_the_command(tmp_path: Path, monkeypatch) -> None:
    page = ROOT / "docs/results/judges.md"
    (command,) = [words for words in commands(page) if words[0] == "bench" and "--table" in words]
    monkeypatch.chdir(ROOT)
    table = tmp_path / "table.md"
    assert fapo(monkeypatch, *(table if word == "judges.md" else word for word in command)) == 0
    assert table.read_text(encoding="utf-8") in page.read_text(encoding="utf-8")
