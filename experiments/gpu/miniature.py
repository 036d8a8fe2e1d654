"""Train with FAPO and with GRPO in the miniature: `fapo train` of its policy.toml, both at once.

python -m experiments.gpu.miniature --out OUT [--steps 50] [--seconds 120] [--tiny]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from experiments.gpu import common
from experiments.gpu.common import Results
from fapo.data import read_jsonl
from fapo.data.miniature.sets import CONFIG_FOLDER

CONFIG = CONFIG_FOLDER / "policy.toml"
SIDES = {"fapo": [], "grpo": ["reward.kind=outcome", "judge="]}
"""Name of a run -> settings that it replaces in the config."""
SHOWN = ("accuracy", "reliable_accuracy", "true_fp_ratio", "length")
"""Metrics of a validation that are kept."""


def summary(run: Path) -> dict[str, Any]:
    """Return the validations of a run and the median seconds of the parts of a step, also of an unfinished run."""
    if not (run / "metrics.jsonl").exists():
        return {"error": "no metrics"}
    rows = list(read_jsonl(run / "metrics.jsonl", ignore_torn_tail=True))
    out: dict[str, Any] = {"seconds": max((row["seconds"] for row in rows), default=0.0), "validation": {}}
    for row in rows:
        if row["kind"] == "validation":
            kept = {key: round(value, 4) for key, value in row.items() if key.endswith(SHOWN) and value is not None}
            out["validation"][str(row["step"])] = kept
    steps = [row for row in rows if row["kind"] == "train"]
    for key in ("time/rollout", "time/score", "time/update"):
        if values := sorted(row[key] for row in steps if row.get(key) is not None):
            out[key] = round(values[len(values) // 2], 3)
    return out | {"steps": len(steps)}


def main() -> None:
    """Start both runs, wait for them, and write what they have measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder of results")
    parser.add_argument("--work", default="/tmp/miniature", help="folder of the runs")
    parser.add_argument("--steps", type=int, default=50, help="training steps")
    parser.add_argument("--seconds", type=float, default=120.0, help="when all ends")
    parser.add_argument("--tiny", action="store_true", help="a dry run")
    given = parser.parse_args()
    begun = time.monotonic()
    Path(given.work).mkdir(parents=True, exist_ok=True)
    settings = [f"output={given.work}", f"optim.steps={given.steps}", "trl.save_strategy=no"]
    settings += ["trl.per_device_eval_batch_size=512"]
    if given.tiny:
        settings += ["optim.steps=1", "rollout.num_prompts=2", "validation.limit=8", "rollout.max_tokens=24"]
    children = {}
    for name, changes in SIDES.items():
        command = [sys.executable, "-m", "fapo.cli", "train", str(CONFIG), f"name={name}", *settings, *changes]
        with (Path(given.work) / f"log-{name}.txt").open("w", encoding="utf-8") as log:
            children[name] = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "TERM": "dumb"}
            )
    while any(child.poll() is None for child in children.values()) and time.monotonic() - begun < given.seconds:
        time.sleep(0.5)
    results = Results(Path(given.out) / "miniature.json")
    results.put("machine", common.machine())
    for name, child in children.items():
        late = child.poll() is None
        if late:
            child.kill()
            child.wait()
        found = summary(Path(given.work) / name) | {"exit_code": child.returncode, "ended_for_lack_of_time": late}
        if child.returncode:
            log_text = (Path(given.work) / f"log-{name}.txt").read_text(encoding="utf-8", errors="replace")
            found["log_end"] = log_text[-1500:]
        results.put(name, found)
        steps = sorted(found.get("validation", {}), key=int)
        last = f", at step {steps[-1]}: {found['validation'][steps[-1]]}" if steps else ""
        print(f"miniature {name}: {found.get('steps')} steps, {found.get('seconds')} s{last}", flush=True)
        if "log_end" in found:
            print(found["log_end"][-600:], flush=True)


if __name__ == "__main__":
    main()
