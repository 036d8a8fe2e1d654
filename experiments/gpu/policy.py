"""GRPO beside FAPO with LoRA on questions with known answers, judged by an adapter on the policy's own weights.

    python -m experiments.gpu.policy --out OUT --base FOLDER --judge ADAPTER --data FILE ... [--seconds 560] [--tiny]

FILE has rows with problem and answer, as math500.jsonl and gsm8k_test.jsonl; half of the problems are for training, the
other half is measured before training and every few steps. ADAPTER is a GenRM that `genrm.py` has trained from the same
base. No oracle knows the flaws of these solutions: FP ratios are the judge's, in both runs. Both runs are made at once.
A second call continues them at their last checkpoints. Results: OUT/policy.json.
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
from experiments.gpu.measured import KINDS, by_validation, rate_of
from experiments.gpu.stages import bound_memory
from fapo.config import from_dict
from fapo.data import read_jsonl, write_jsonl
from fapo.trl.train import train

MEMORY = 0.45
"""Fraction of the card's memory that each run may use."""
EVERY = 10
"""Steps between two validations and checkpoints."""


def halves(files: Sequence[Path], work: Path) -> dict[str, Path]:
    """Write one half of the problems to `work` as train.jsonl, and the other half of each file under its name.

    Args:
        files: Files of questions with answers.
        work: Folder to write to.

    Returns:
        Path of each written file by its name.
    """
    work.mkdir(parents=True, exist_ok=True)
    sides: dict[str, list[dict[str, Any]]] = {"train": []}
    for file in files:
        for row in read_jsonl(file):
            sides.setdefault("train" if common.in_training(row["problem"]) else file.stem, []).append(row)
    for name, rows in sides.items():
        write_jsonl(work / f"{name}.jsonl", rows)
    return {name: work / f"{name}.jsonl" for name in sides}


def settings(kind: str, sets: dict[str, Path], given: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of a run.

    Args:
        kind: One of KINDS. Both runs are judged, so that both have an FP ratio; only "fapo" uses the verdicts.
        sets: Files of `halves`.
        given: Options of the command line.
    """
    tiny = given.tiny
    num_prompts, group, max_tokens = (2, 2, 24) if tiny else (32, 8, 512)
    return {
        "name": kind,
        "task": "policy",
        "output": given.work,
        "model": {
            "path": str(given.base),
            "dtype": "float32" if tiny else "mixed",
            "lora": {"rank": 16, "save": "adapter"},
        },
        "data": {
            "train": str(sets["train"]),
            "validation": {name: str(path) for name, path in sets.items() if name != "train"},
            "max_prompt_tokens": 200 if tiny else 1024,
            **({} if tiny else {"prompt": "boxed"}),
        },
        "rollout": {"num_prompts": num_prompts, "group_size": group, "max_tokens": max_tokens},
        "reward": {"kind": "fapo", "penalty": 1.0 if kind == "fapo" else 0.0},
        "judge": {
            "kind": "adapter",
            "model": str(given.judge),
            "template": "compact" if tiny else str(common.SENTENCE),
            "max_tokens": 8 if tiny else 128,
            "temperature": 0.6,
        },
        "optim": {
            "steps": 2 if tiny else given.steps,
            "learning_rate": 2e-4,
            "warmup_steps": 2,
            "micro_batch_size": 2 if tiny else 8,
        },
        "validation": {"every": 1 if tiny else EVERY, "save_every": 1 if tiny else EVERY, "limit": 4 if tiny else 256},
        "trl": {"per_device_eval_batch_size": 4 if tiny else 256},
    }


def summary(run: Path) -> dict[str, Any]:
    """Return accuracy, FP ratio by the judge and length in each validation, by set and step."""
    if not (run / "rollouts.jsonl").exists():
        return {"error": "no rollouts"}
    out: dict[str, Any] = {}
    for (split, step), rows in by_validation(run).items():
        judged = [row for row in rows if row["correct"] and row["status"] == "ok"]
        out.setdefault(split, {})[str(step)] = {
            "accuracy": rate_of(sum(row["correct"] for row in rows), len(rows)),
            "fp_ratio_by_the_judge": rate_of(sum(row["flawed"] for row in judged), len(judged)),
            "tokens": round(sum(row["num_tokens"] for row in rows) / len(rows), 2),
        }
    return out


def main() -> None:
    """Train both policies, each in a process of its own, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder of results")
    parser.add_argument("--base", required=True, type=Path, help="folder of the model, such as Qwen2.5-Coder-0.5B")
    parser.add_argument("--judge", required=True, type=Path, help="folder of an adapter of the same model")
    parser.add_argument("--data", required=True, nargs="+", type=Path, help="files of questions with answers")
    parser.add_argument("--work", default="/tmp/policy", help="folder of data and runs")
    parser.add_argument("--steps", type=int, default=40, help="training steps")
    parser.add_argument("--seconds", type=float, default=560.0, help="when all ends")
    parser.add_argument("--tiny", action="store_true", help="a dry run")
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    begun, work = time.monotonic(), Path(given.work)
    if given.kind:
        sets = {file.stem: file for file in (work / "data").glob("*.jsonl")}
        bound_memory(MEMORY)
        train(from_dict(settings(given.kind, sets, given)), resume=True)
        return
    sets = halves(given.data, work / "data")
    ends = common.side_by_side("experiments.gpu.policy", KINDS, work, given.seconds - (time.monotonic() - begun))
    results = Results(Path(given.out) / "policy.json")
    results.put("machine", common.machine())
    for kind, found in ends.items():
        found["validation"] = summary(work / kind)
        results.put(kind, found)
        print(f"[{kind}] {json.dumps(found)[:1500]}", flush=True)


if __name__ == "__main__":
    main()
