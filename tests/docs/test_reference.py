"""The reference pages of the repository are those that the code generates."""

from __future__ import annotations

import subprocess
import sys

from tests.support.paths import ROOT


def test_the_reference_is_up_to_date() -> None:
    command = [sys.executable, "docs/hooks/reference.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{done.stderr}\n(this writes them: python docs/hooks/reference.py)"


def test_every_key_and_option_is_in_the_repository() -> None:
    config = (ROOT / "docs/reference/config.md").read_text(encoding="utf-8")
    assert all(f"| `{key}` |" in config for key in ("learning_rate", "penalty", "urls", "clip_dual", "seed"))
    assert "--require-box" in (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
