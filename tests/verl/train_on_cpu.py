"""`fapo train CONFIG [KEY=VALUE ...] --engine verl` without an accelerator, for runs longer than those of the tests.

.venv-verl/bin/python tests/verl/train_on_cpu.py src/fapo/miniature/configs/policy.toml name=verl-0 seed=0
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from verl_runs import environment, on_cpu


def main(config: str, *options: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / Path(config).name
        table = "".join(f'"{key}" = {json.dumps(value)}\n' for key, value in on_cpu().items())
        file.write_text(f"{Path(config).read_text(encoding='utf-8')}\n[verl]\n{table}", encoding="utf-8")
        command = [sys.executable, "-m", "fapo.cli", "train", str(file), *options, "--engine", "verl"]
        return subprocess.run(command, env=environment(Path(folder)), check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
