"""Known vulnerabilities of the versions in requirements/constraints.txt, as pip-audit finds them on PyPI.

python .ci/vulnerabilities.py [FILE]

Fails for those that a newer version mends; tells of the others. Where PyPI does not tell (an index without its JSON
interface, no network), it says so and does not fail: what was not looked at is not called safe.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PINS = Path(__file__).parents[1] / "requirements" / "constraints.txt"


@dataclass(frozen=True)
class Audit:
    """What pip-audit found."""

    num_looked_up: int
    """Packages that were looked up."""
    unknown: Sequence[str]
    """Packages that were not there."""
    mended: Sequence[str]
    """Vulnerabilities that a newer version is free of."""
    open: Sequence[str]
    """The others."""


def read(report: dict[str, Any]) -> Audit:
    """The JSON that pip-audit prints."""
    looked_up = [found for found in report["dependencies"] if "skip_reason" not in found]
    told = [(f"{p['name']} {p['version']}: {v['id']}", v["fix_versions"]) for p in looked_up for v in p["vulns"]]
    return Audit(
        num_looked_up=len(looked_up),
        unknown=[found["name"] for found in report["dependencies"] if "skip_reason" in found],
        mended=[f"{what}, mended in {', '.join(versions)}" for what, versions in told if versions],
        open=[what for what, versions in told if not versions],
    )


def audit(pins: Sequence[str]) -> Audit | str:
    """Ask about these versions; a string says why nothing could be learnt."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "requirements.txt"
        file.write_text("\n".join(pins) + "\n", encoding="utf-8")
        options = ["--no-deps", "--disable-pip", "--format", "json", "--progress-spinner", "off", "--timeout", "10"]
        command = [sys.executable, "-m", "pip_audit", "-r", str(file), *options]
        done = subprocess.run(command, capture_output=True, text=True)
    try:
        return read(json.loads(done.stdout))
    except json.JSONDecodeError:
        return (done.stderr.strip().splitlines() or [f"pip-audit: exit status {done.returncode}"])[-1]


def main() -> None:
    lines = Path(sys.argv[1] if len(sys.argv) > 1 else PINS).read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if "==" in line and not line.startswith("#")]
    first = audit(pins[:1])
    if isinstance(first, str) or not first.num_looked_up:
        why = first if isinstance(first, str) else "the index does not know its own packages by their JSON interface"
        print(f"vulnerabilities: NOT CHECKED, PyPI does not tell here ({why})")
        return
    found = audit(pins)
    if isinstance(found, str):
        print(f"vulnerabilities: NOT CHECKED, {found}")
        return
    print(f"vulnerabilities: {found.num_looked_up} packages looked up, {len(found.mended) + len(found.open)} found")
    for title, some in (("not known there", found.unknown), ("no version mends", found.open), ("", found.mended)):
        for one in some:
            print(f"  {title}: {one}" if title else f"  {one}")
    sys.exit(bool(found.mended))


if __name__ == "__main__":
    main()
