"""A GenRM by step-wise RL and by outcome RL from the same start, with LoRA, on labelled solutions of ProcessBench.

    python -m experiments.gpu.genrm --out OUT --base FOLDER --data FILE ... [--seconds 560] [--steps 40] [--tiny]

FILE is a file of ProcessBench, such as gsm8k.jsonl. Half of the problems are for training. The other half is measured
before training and every few steps, solutions with right answers (NAME-right) apart from those with wrong ones
(NAME-wrong). Training has both, since too few of the right ones are flawed. Both runs are made at once. A second call
continues them at their last checkpoints. Results: OUT/genrm.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.gpu import common
from experiments.gpu.common import Results
from experiments.gpu.measured import by_validation, summary_of_critiques
from experiments.gpu.stages import bound_memory
from fapo.config import from_dict
from fapo.data import read_jsonl, write_jsonl
from fapo.trl.train import train

KINDS = ("genrm_step", "genrm_outcome")
"""Rewards, and names of the runs."""
MEMORY = 0.45
"""Fraction of the card's memory that each run may use."""
MAX_CHARACTERS = 2400
"""Largest length of a problem and its steps together; a few longer rows would set the memory of a step."""
EVERY = 10
"""Steps between two validations and checkpoints."""


def halves(files: Sequence[Path], work: Path) -> dict[str, Path]:
    """Write the rows of one half of the problems to `work` as train.jsonl, and those of the other half as sets.

    A problem is on one side with all its solutions; its text decides on which. Rows beyond MAX_CHARACTERS are left out.

    Args:
        files: Files of ProcessBench.
        work: Folder to write to.

    Returns:
        Path of each written file by its name: "train", and for each file NAME-right and NAME-wrong.
    """
    work.mkdir(parents=True, exist_ok=True)
    sides: dict[str, list[dict[str, Any]]] = {"train": []}
    for file in files:
        for row in read_jsonl(file):
            if len(row["problem"]) + sum(map(len, row["steps"])) > MAX_CHARACTERS:
                continue
            answer = "right" if row["final_answer_correct"] else "wrong"
            side = "train" if common.in_training(row["problem"]) else f"{file.stem}-{answer}"
            sides.setdefault(side, []).append(row)
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
    num_prompts, group, max_tokens = (2, 2, 8) if tiny else (24, 8, 128)
    return {
        "name": kind,
        "task": "genrm",
        "output": given.work,
        "model": {"path": str(base), "dtype": "float32" if tiny else "mixed", "lora": {"rank": 16, "save": "adapter"}},
        "data": {
            "train": str(sets["train"]),
            "validation": {name: str(path) for name, path in sets.items() if name != "train"},
            "max_prompt_tokens": 400 if tiny else 2560,
        },
        "genrm": {"template": "compact" if tiny else str(common.SENTENCE)},
        "rollout": {"num_prompts": num_prompts, "group_size": group, "max_tokens": max_tokens},
        "reward": {"kind": kind},
        "optim": {
            "steps": 2 if tiny else given.steps,
            "learning_rate": 2e-4,
            "warmup_steps": 2,
            "micro_batch_size": 2 if tiny else 8,
        },
        "trl": {"per_device_eval_batch_size": 4 if tiny else 256},
        "validation": {"every": EVERY, "save_every": EVERY, "temperature": 0.0, "limit": 4 if tiny else 256},
    }


def summary(run: Path) -> dict[str, Any]:
    """Return the quality of the critiques in each validation of a run, by set and step, also of an unfinished run."""
    if not (run / "rollouts.jsonl").exists():
        return {"error": "no rollouts"}
    out: dict[str, Any] = {}
    for (split, step), rows in by_validation(run).items():
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
        bound_memory(MEMORY)
        train(from_dict(settings(given.kind, given.base, sets, given)), resume=True)
        return
    sets = halves(given.data, work / "data")
    ends = common.side_by_side("experiments.gpu.genrm", KINDS, work, given.seconds - (time.monotonic() - begun))
    results = Results(Path(given.out) / "genrm.json")
    results.put("machine", common.machine())
    results.put("rows", {name: sum(1 for _ in read_jsonl(path)) for name, path in sets.items()})
    for kind, found in ends.items():
        found["validation"] = summary(work / kind)
        results.put(kind, found)
        print(f"[{kind}] {json.dumps(found)[:1500]}", flush=True)


if __name__ == "__main__":
    main()
