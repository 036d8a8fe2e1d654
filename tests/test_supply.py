"""Pinned versions of dependencies, their hashes, and the files of the wheel."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path, PurePath
from zipfile import ZipFile

import pytest

from tests.support.paths import ROOT, SOURCE


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
    assert pins("hashes.txt") == pins("constraints.txt")


@pytest.mark.parametrize(("tool", "hook"), [("ruff", "ruff-pre-commit"), ("typos", "typos")])
def test_commit_hooks_have_the_pinned_versions(tool: str, hook: str) -> None:
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert re.findall(rf"/{hook}\n +rev: v(\S+)", hooks) == [pins("constraints.txt")[tool]]


@pytest.mark.slow
def test_the_wheel_has_the_files_of_the_package_and_no_others(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = [path for path in SOURCE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert names == {path.relative_to(SOURCE).as_posix() for path in files}
    assert {PurePath(name).parts[0] for name in names} == {"fapo"}
    assert {
        *("fapo/py.typed", "fapo/judge/prompts/locate.txt", "fapo/report/assets/page.css"),
        *("fapo/data/miniature/base/policy/model.safetensors", "fapo/data/miniature/configs/policy.toml"),
    } <= names
