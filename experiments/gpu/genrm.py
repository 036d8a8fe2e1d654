"""A GenRM by step-wise RL and by outcome RL from the same start, with LoRA, on right solutions of ProcessBench.

    python -m experiments.gpu.genrm --out OUT --base FOLDER --data FILE ... [--seconds 560] [--steps 40] [--tiny]

FILE is a file of ProcessBench, such as gsm8k.jsonl; its name is the name of the validation set. Only solutions with a
right answer count. Half of the problems are for training, the other half is measured before training and every few
steps. Both runs are made at once. A second call continues them at their last checkpoints. Results: OUT/genrm.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.gpu import common
from experiments.gpu.common import Results
from experiments.gpu.measured import summary_of_critiques
from fapo.config import from_dict
from fapo.data import read_jsonl, write_jsonl
from fapo.trl.train import train

KINDS = ("genrm_step", "genrm_outcome")
"""Rewards, and names of the runs."""
EVERY = 10
"""Steps between two validations and checkpoints."""


def halves(files: Sequence[Path], work: Path) -> dict[str, Path]:
    """Write the solutions with right answers to `work`: train.jsonl, and one file of the other problems for each file.

    A problem is on one side with all its solutions; its text decides on which.

    Args:
        files: Files of ProcessBench.
        work: Folder to write to.

    Returns:
        Path of each written file by its name: "train" and the names of the files.
    """
    work.mkdir(parents=True, exist_ok=True)
    sides: dict[str, list[dict[str, Any]]] = {"train": []}
    for file in files:
        rows = [row for row in read_jsonl(file) if row["final_answer_correct"]]
        in_training = [zlib.crc32(row["problem"].encode()) % 2 == 0 for row in rows]
        sides["train"] += [row for row, trained in zip(rows, in_training, strict=True) if trained]
        sides[file.stem] = [row for row, trained in zip(rows, in_training, strict=True) if not trained]
    for name, rows in sides.items():
        write_jsonl(work / f"{name}.jsonl", rows)
    return {name: work / f"{name}.jsonl" for name in sides}


def settings(kind: str, base: Path, sets: dict[str, Path], given: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of a run.

    Args:
        kind: One of KINDS.
        base: Folder of the model.
        sets: Files of `halves`.
        given: Options of the command line.
    """
    tiny = given.tiny
    num_prompts, group, max_tokens = (2, 2, 8) if tiny else (16, 8, 400)
    return {
        "name": kind,
        "task": "genrm",
        "output": given.work,
        "model": {"path": str(base), "dtype": "float32" if tiny else "mixed", "lora": {"rank": 16, "save": "adapter"}},
        "data": {
            "train": str(sets["train"]),
            "validation": {name: str(path) for name, path in sets.items() if name != "train"},
            "max_prompt_tokens": 400 if tiny else 2048,
        },
        "genrm": {"template": "compact" if tiny else "locate_small"},
        "rollout": {"num_prompts": num_prompts, "group_size": group, "max_tokens": max_tokens},
        "reward": {"kind": kind},
        "optim": {
            "steps": 2 if tiny else given.steps,
            "learning_rate": 1e-4,
            "warmup_steps": 2,
            "micro_batch_size": 2 if tiny else 16,
        },
        "validation": {"every": EVERY, "save_every": EVERY, "temperature": 0.0, "limit": 4 if tiny else 160},
    }


def summary(run: Path) -> dict[str, Any]:
    """Return the quality of the critiques in each validation of a run, by set and step, also of an unfinished run."""
    if not (run / "rollouts.jsonl").exists():
        return {"error": "no rollouts"}
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in read_jsonl(run / "rollouts.jsonl", ignore_torn_tail=True):
        if row["split"] != "train":
            groups.setdefault((row["split"], row["step"]), []).append(row)
    out: dict[str, Any] = {}
    for (split, step), rows in sorted(groups.items()):
        out.setdefault(split, {})[str(step)] = {"n": len(rows), **summary_of_critiques(rows)}
    return out


def main() -> None:
    """Train both GenRMs, each in a process of its own, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder of results")
    parser.add_argument("--base", required=True, type=Path, help="folder of the model, such as Qwen2.5-Coder-0.5B")
    parser.add_argument("--data", required=True, nargs="+", type=Path, help="files of ProcessBench")
    parser.add_argument("--work", default="/tmp/genrm", help="folder of data and runs")
    parser.add_argument("--steps", type=int, default=40, help="training steps")
    parser.add_argument("--seconds", type=float, default=560.0, help="when all ends")
    parser.add_argument("--tiny", action="store_true", help="a dry run")
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    begun, work = time.monotonic(), Path(given.work)
    if given.kind:
        sets = {file.stem: file for file in (work / "data").glob("*.jsonl")}
        train(from_dict(settings(given.kind, given.base, sets, given)), resume=True)
        return
    sets = halves(given.data, work / "data")
    children = {}
    for kind in KINDS:
        command = [sys.executable, "-m", "experiments.gpu.genrm", *sys.argv[1:], "--kind", kind]
        with (work / f"log-{kind}.txt").open("a", encoding="utf-8") as log:
            children[kind] = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "TERM": "dumb"}
            )
    while any(child.poll() is None for child in children.values()) and time.monotonic() - begun < given.seconds:
        time.sleep(0.5)
    results = Results(Path(given.out) / "genrm.json")
    results.put("machine", common.machine())
    results.put("rows", {name: sum(1 for _ in read_jsonl(path)) for name, path in sets.items()})
    for kind, child in children.items():
        late = child.poll() is None
        if late:
            child.kill()
            child.wait()
        found: dict[str, Any] = {"exit_code": child.returncode, "ended_for_lack_of_time": late}
        found["validation"] = summary(work / kind)
        if child.returncode:
            text = (work / f"log-{kind}.txt").read_text(encoding="utf-8", errors="replace")
            found["log_end"] = text[-1500:]
        results.put(kind, found)
        print(f"[{kind}] {json.dumps(found)[:1500]}", flush=True)


if __name__ == "__main__":
    main()
