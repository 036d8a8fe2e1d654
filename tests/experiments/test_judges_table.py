"""The tables of judges in the documentation are what `fapo bench` makes of the predictions in the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import fapo
from tests.support.documents import ROOT, commands
from tests.support.paths import shared_data

PAGE = ROOT / "docs/results/judges.md"
COMMANDS = [words for words in commands(PAGE) if words[0] == "bench" and "--table" in words]


@pytest.mark.parametrize("command", COMMANDS, ids=["miniature", "real judges", "prompts"])
def test_a_table_of_judges_is_that_of_its_command(command: list[str], tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    for name in (word for word in command if word.startswith("processbench_")):
        (tmp_path / name).symlink_to(shared_data(name))
    monkeypatch.chdir(tmp_path)
    assert fapo(monkeypatch, *command) == 0
    table = tmp_path / command[command.index("--table") + 1]
    assert table.read_text(encoding="utf-8") in PAGE.read_text(encoding="utf-8")
