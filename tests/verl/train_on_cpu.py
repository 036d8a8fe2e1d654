"""`fapo train CONFIG [KEY=VALUE ...] --engine verl` without an accelerator, for runs longer than those of the tests.

For the policies of the miniature, whose prompts have fewer than 32 tokens: verl pads all to the longest allowed.

.venv-verl/bin/python -m tests.verl.train_on_cpu miniature name=verl-0 seed=0
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from fapo.config.paths import find_config
from tests.support.verl_runs import config_on_cpu, environment, on_cpu


def main(config: str, *options: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        file = config_on_cpu(find_config(Path(config))[0], Path(folder), on_cpu())
        command = [sys.executable, "-m", "fapo.cli", "train", str(file), "data.max_prompt_tokens=32", *options]
        command += ["--engine", "verl"]
        return subprocess.run(command, env=environment(Path(folder), OMP_NUM_THREADS="2"), check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
